// The tables of a step, made on the host and copied to the device in one piece, to addresses that
// stay from step to step.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "cuda_device.h"
#include "step_tables.h"

namespace qllm::cuda {

/// Where each table begins in the one piece of memory.
struct TableLayout {
  int64_t slices = 0, slice_of = 0, position = 0, output_rows = 0, blocks = 0;  // in bytes
  int64_t bytes = 0;
};

/// For steps of up to `tokens` tokens and `outputs` outputs whose sequences hold `blocks` blocks
/// together. A step has at most as many slices as tokens.
TableLayout table_layout(int64_t tokens, int64_t outputs, int64_t blocks);

/// A slice of the batch per entry.
std::vector<DeviceSlice> device_slices(const Batch& batch);

class StepUpload {
 public:
  explicit StepUpload(const PlanLimits& limits);

  /// Fills the tables for a batch and sends them off. Block b of a slice lies where
  /// `address(slice, block)` says. Grows with the longest step: then tables() changes, and true is
  /// returned.
  template <class Address>
  bool send(const Batch& batch, const Stream& stream, Address address) {
    slices_ = device_slices(batch);
    int64_t blocks = 0;
    for (const BatchSlice& s : batch.slices) blocks += block_count(s);
    const bool moved = reserve(blocks);
    fill(batch);
    std::byte** out = host_table<std::byte*>(layout_.blocks);
    for (const BatchSlice& s : batch.slices) {
      for (int64_t b = 0; b < block_count(s); ++b) {
        *out++ = address(s, s.kv->blocks()[static_cast<size_t>(b)]);
      }
    }
    copy_to_device(device_.data(), host_.data(), layout_.blocks + blocks * kPointerBytes, stream);
    return moved;
  }

  const StepTables& tables() const { return tables_; }

 private:
  static constexpr int64_t kPointerBytes = sizeof(std::byte*);
  static int64_t block_count(const BatchSlice& slice);
  bool reserve(int64_t blocks);
  void fill(const Batch& batch);
  template <class T>
  T* host_table(int64_t offset) {
    return reinterpret_cast<T*>(host_.data() + offset);
  }

  PlanLimits limits_;
  TableLayout layout_;
  int64_t room_ = -1;  // blocks
  PinnedBuffer host_;
  DeviceBuffer device_;
  StepTables tables_;
  std::vector<DeviceSlice> slices_;
};

}  // namespace qllm::cuda
