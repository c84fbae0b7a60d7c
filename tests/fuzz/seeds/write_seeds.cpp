// Writes seeds below FOLDER: `qllm_fuzz_seeds FOLDER`. corpus-gguf: small models of each tokenizer
// kind, and a file of every value type. corpus-session: saved sessions. corpus-packed: packed ones.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "support/packed_model.h"
#include "support/saved_session.h"
#include "support/tiny_llama.h"

namespace {

using qllm::GgmlType;
using qllm::TokenizerKind;
using qllm::test::GgufBuilder;
using qllm::test::TinyLlamaOptions;

TinyLlamaOptions smallest(TokenizerKind kind, GgmlType type) {
  TinyLlamaOptions options;
  options.d_model = 32;
  options.d_ff = 32;
  options.n_layers = 1;
  options.n_heads = 2;
  options.n_kv_heads = 1;
  options.tokenizer = kind;
  options.type = type;
  return options;
}

GgufBuilder every_value_type() {
  GgufBuilder b;
  b.add_string("general.architecture", "llama");
  b.add_u8("a", 1);
  b.add_i16("b", -1);
  b.add_u64("c", 1);
  b.add_f64("d", 1.0);
  b.add_bool("e", true);
  b.add_strings("f", {"x", ""});
  b.add_i32s("g", {1, 2});
  b.add_tensor("t", {2, 2, 2}, GgmlType::f16, std::vector<float>(8, 1.0F));
  return b;
}

void write_models(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const GgufBuilder& b) {
    qllm::test::write_file((folder / name).string(), b.finish());
  };
  write("values", every_value_type());
  TinyLlamaOptions bpe = smallest(TokenizerKind::bpe, GgmlType::q4_1);
  write("bpe", tiny_llama_builder(bpe));
  bpe.attention_bias = bpe.rope_freqs = true;
  bpe.tied_lm_head = false;
  write("bpe_bias", tiny_llama_builder(bpe));
  write("spm", tiny_llama_builder(smallest(TokenizerKind::spm, GgmlType::q8_0)));
}

/// Behind the two bytes that fuzz_session takes off: all checksums made right, room for all.
void write_session(const std::filesystem::path& folder, int64_t count) {
  std::filesystem::create_directories(folder);
  const std::string path = folder / std::to_string(count);
  qllm::KvCache kv(qllm::test::make_digest_pool({3, 3}), 192);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 5);
  qllm::test::append(kv, ids);
  save_sequence(path, qllm::test::kSavedOwner, kv);
  std::ifstream in(path, std::ios::binary);
  std::string bytes = "\x07\xff";
  bytes.append(std::istreambuf_iterator<char>(in), {});
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Behind the byte that fuzz_packed takes off: all checksums made right.
void write_packed(const std::filesystem::path& folder, const char* name, GgmlType type,
                  const char* scheme, bool rotates) {
  std::filesystem::create_directories(folder);
  const auto bytes = qllm::test::build_packed(smallest(TokenizerKind::bpe, type),
                                              qllm::parse_scheme(scheme), rotates);
  std::vector<std::byte> file = {std::byte{0x0F}};
  file.insert(file.end(), bytes.begin(), bytes.end());
  qllm::test::write_file((folder / name).string(), file);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: qllm_fuzz_seeds FOLDER\n", stderr);
    return 2;
  }
  const std::filesystem::path folder(argv[1]);
  write_models(folder / "corpus-gguf");
  for (const int64_t count : {0, 1, 64, 130}) write_session(folder / "corpus-session", count);
  const std::filesystem::path packed = folder / "corpus-packed";
  write_packed(packed, "int8", GgmlType::f32, "int8", true);
  write_packed(packed, "int4", GgmlType::f32, "int4-g32", false);
  write_packed(packed, "keep", GgmlType::q4_1, "keep", false);
  return 0;
}
