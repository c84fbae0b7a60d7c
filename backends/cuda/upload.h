// Weights on their way to the device.
#pragma once

#include <vector>

#include "backend/packed_linear.h"
#include "cuda_device.h"
#include "kernels/linear.h"
#include "row_share.h"

namespace qllm::cuda {

/// Fills page-locked memory with packed blocks, all host threads together, and sends it off while
/// the next is filled. Int8 blocks become plain rows on the device.
class Uploader {
 public:
  explicit Uploader(const Stream& stream);

  /// A piece of one of the `runs` of a weight: its codes to `codes` (rows of k_padded, or block
  /// columns) and, int8 only, its scales to `scale`, device memory. `packed` may be null: then
  /// blocks are made from `source`.
  void send(const Weight& weight, const PackedLinear* packed, const TensorSource& source,
            const std::vector<PackedRun>& runs, const RunPiece& piece, int term, std::byte* codes,
            float* scale);
  /// Waits until all has arrived.
  void finish() { stream_.synchronize(); }

 private:
  /// Half of the staging memory, and when the device has read it.
  struct Half {
    PinnedBuffer host;
    DeviceBuffer device;  // packed int8 blocks, until they are rows
    Event done;
    bool used = false;
  };
  Half& next_half(int64_t bytes);

  const Stream& stream_;
  std::vector<Half> halves_;
  size_t turn_ = 0;
};

}  // namespace qllm::cuda
