// Writes the seed corpus of fuzz_gguf: `qllm_fuzz_seeds FOLDER`. Small models of each tokenizer
// kind, and a file of every value type.
#include <cstdio>
#include <filesystem>
#include <string>

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: qllm_fuzz_seeds FOLDER\n", stderr);
    return 2;
  }
  const std::filesystem::path folder(argv[1]);
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
  return 0;
}
