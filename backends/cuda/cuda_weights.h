// The weights of a graph on a GPU: int8 linears as plain rows, linears in groups in block columns,
// vectors as float32. The embedding table stays with its source.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/packed_linear.h"
#include "cuda_device.h"
#include "kernels/linear.h"
#include "row_share.h"

namespace qllm::cuda {

/// One linear in device memory.
struct DeviceLinear {
  int64_t n = 0;                 // outputs that it holds
  int64_t group = 0;             // of the activations that it wants; 0: one scale per token
  int64_t k_padded = 0;          // inputs, the most that any run pads to
  std::vector<Int8Linear> int8;  // cover the rows, or
  std::vector<GroupRun> groups;  // these do
  std::vector<DeviceBuffer> memory;
};

class CudaWeights final : public Weights {
 public:
  /// `shares`: what this device holds of each weight, an empty one all of it; no shares: all of
  /// all. Throws what the source throws; bad_format for a block whose checksum is another;
  /// out_of_memory.
  CudaWeights(const Graph& graph, const Scheme& scheme, std::shared_ptr<const TensorSource> source,
              const Stream& stream, const ProgressFn& progress,
              const std::vector<RowShare>& shares = {});

  const DeviceLinear& linear(WeightId id) const { return linears_[static_cast<size_t>(id)]; }
  /// Null for weights of other roles. Padded to a multiple of 64 elements.
  const float* vector(WeightId id) const { return vectors_[static_cast<size_t>(id)].as<float>(); }
  const TensorSource& source() const { return *source_; }

  int64_t bytes() const override { return bytes_; }
  int64_t bytes_per_step() const override { return bytes_ + gathered_bytes_; }
  std::string memory() const override { return "device"; }

 private:
  std::shared_ptr<const TensorSource> source_;
  std::vector<DeviceLinear> linears_;
  std::vector<DeviceBuffer> vectors_;
  int64_t bytes_ = 0;
  int64_t gathered_bytes_ = 0;
};

/// Bytes that a linear of this layout takes on the device.
int64_t device_bytes(const PackedLayout& layout);

/// `first` runs with the second terms of their rows: cut so that each part has one run of those at
/// most. Row numbers and sizes only; pointers are null. The runs are row_int8.
std::vector<Int8Linear> pair_terms(const PackedLayout& layout);

}  // namespace qllm::cuda
