// Writes packed model files, one linear after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/packed_linear.h"
#include "core/part_file.h"
#include "graph/graph.h"
#include "model/gguf.h"
#include "model/packed_file.h"
#include "model/packed_format.h"

namespace qllm {

class PackedWriter {
 public:
  /// One linear as it will lie in the file.
  struct Linear {
    const Weight* weight = nullptr;
    PackedLayout layout;
    uint64_t at = 0;
    std::vector<uint64_t> checks;  // per block of 64 rows: of all runs, then of second terms
  };

  /// Plans the file: `graph` is built as `form` says, `source` reads `gguf` likewise. All three
  /// outlive the writer. Throws what the source throws.
  PackedWriter(const GgufFile& gguf, const Graph& graph, const TensorSource& source,
               const PackedForm& form);

  int64_t file_bytes() const { return static_cast<int64_t>(header_.file_bytes); }
  const std::vector<Linear>& linears() const { return linears_; }

  /// Quantizes on `backend` and writes everything; of the input no more than one linear stays in
  /// memory. `done` gets bytes written so far, one call at a time, and may throw. Throws io (a full
  /// disk), and what the source throws.
  void write(PartFile& file, Backend& backend, const std::function<void(int64_t)>& done);

 private:
  void plan_image();
  void plan_linears();
  std::vector<std::byte> table() const;
  void write_image(PartFile& file);
  void write_linear(class ChunkedOutput& file, Backend& backend,
                    const std::function<void(int64_t)>& done, Linear* linear);
  void write_header(PartFile& file);

  const GgufFile& gguf_;
  const Graph& graph_;
  const TensorSource& source_;
  PackedForm form_;
  PackedHeader header_;
  std::vector<std::byte> image_head_;    // metadata and tensor table of the image
  std::vector<const GgufTensor*> kept_;  // what the image holds
  std::vector<uint64_t> kept_at_;        // offsets in the image's data
  std::vector<uint64_t> tensor_checks_;
  std::vector<Linear> linears_;
};

}  // namespace qllm
