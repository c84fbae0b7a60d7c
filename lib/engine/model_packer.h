// A GGUF file packed: what `qllm quantize` and the cache share.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "core/part_file.h"
#include "graph/graph.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/packed_writer.h"
#include "qllm/qllm.hpp"

namespace qllm {

class ModelPacker {
 public:
  /// Checks the model and plans the packed file, as `options` would load it. Throws bad_format,
  /// unsupported, invalid_argument, what the backend throws.
  ModelPacker(std::shared_ptr<const GgufFile> file, const OpenOptions& options);

  int64_t file_bytes() const { return writer_->file_bytes(); }
  const std::vector<PackedWriter::Linear>& linears() const { return writer_->linears(); }
  /// Writes and commits. Throws io; cancelled where options.progress says no.
  void write(PartFile& out);

 private:
  std::shared_ptr<const GgufFile> file_;
  OpenOptions options_;
  ModelConfig config_;
  Graph graph_;
  std::shared_ptr<const TensorSource> source_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<PackedWriter> writer_;
};

}  // namespace qllm
