// Tiny models packed into the bytes of a .qllm file, and what those bytes can be asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/gguf_config.h"
#include "model/gguf_source.h"
#include "model/llama.h"
#include "model/packed_file.h"
#include "model/packed_format.h"
#include "model/packed_writer.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace qllm::test {

/// Bytes at a multiple of 64, as a mapping has them.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::span<const std::byte> bytes)
      : storage_(bytes.size() + 64), size_(bytes.size()) {
    begin_ = (64 - reinterpret_cast<uintptr_t>(storage_.data()) % 64) % 64;
    if (!bytes.empty()) std::memcpy(data(), bytes.data(), bytes.size());
  }
  std::byte* data() { return storage_.data() + begin_; }
  std::span<const std::byte> span() const { return {storage_.data() + begin_, size_}; }

 private:
  std::vector<std::byte> storage_;
  size_t begin_ = 0;
  size_t size_;
};

/// A tiny model packed on the cpu.
inline std::vector<std::byte> build_packed(const TinyLlamaOptions& model, const Scheme& scheme,
                                           bool rotates, int threads = 1) {
  const std::vector<std::byte> bytes = build_tiny_llama_gguf(model);
  const auto gguf = GgufFile::parse(bytes, "tiny.gguf");
  const ModelConfig config = config_from_gguf(*gguf);
  PackedForm form;
  form.scheme = scheme;
  if (rotates) form.rotations = llama_rotations(config);
  form.tied_lm_head = config.tied_lm_head;
  form.digest = 42;
  const Graph graph = build_llama(config, form.rotations);
  const auto source =
      rotate_llama(config, form.rotations, std::make_shared<GgufTensorSource>(gguf));
  BackendOptions options;
  options.scheme = scheme;
  options.threads = threads;
  const auto backend = make_backend("cpu", options);
  PackedWriter writer(*gguf, graph, *source, form);
  const TempDir dir;
  const std::string path = dir.path() / "m.qllm";
  {
    PartFile file(path, 0600);
    writer.write(file, *backend, [](int64_t) {});
    file.commit();
  }
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto all = std::as_bytes(std::span(text));
  return {all.begin(), all.end()};
}

/// Makes the checksums of header, table and metadata right, as whoever forges a file would.
inline void repair_packed(std::byte* file, size_t size, unsigned which) {
  if (size < sizeof(PackedHeader)) return;
  PackedHeader header;
  std::memcpy(&header, file, sizeof(header));
  const auto part = [&](uint64_t at, uint64_t bytes, uint64_t* check) {
    if (at <= size && bytes <= size - at) *check = checksum({file + at, bytes});
  };
  if ((which & 1U) != 0) part(header.table_at, header.table_bytes, &header.table_check);
  if ((which & 2U) != 0) part(header.gguf_at, header.gguf_head_bytes, &header.gguf_head_check);
  if ((which & 4U) != 0) header.file_bytes = size;
  if ((which & 8U) != 0) header.check = check_of(header);
  std::memcpy(file, &header, sizeof(header));
}

/// All that the library does with a packed file before it computes. Throws qllm::Error.
inline void load_packed(std::span<const std::byte> bytes) {
  const auto file = PackedFile::parse(bytes, "m.qllm");
  const ModelConfig config = config_from_packed(*file);
  const Graph graph = build_llama(config, file->form().rotations);
  check_packed(*file, graph);
  const GgufTensorSource source({file, &file->gguf()});
  std::vector<float> row(static_cast<size_t>(config.d_model));
  source.read_rows("token_embd.weight", config.vocab_size - 1, 1, row.data());
  PackedFile::Verification all;
  file->verify(&all);
}

}  // namespace qllm::test
