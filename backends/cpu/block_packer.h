// Blocks of 64 outputs, quantized and packed with a tier's kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/packed_linear.h"
#include "backend/weight_block.h"
#include "kernels/vec.h"

namespace qllm::cpu {

/// Where a block goes: as PackedView, of one block.
struct BlockTarget {
  std::byte* codes = nullptr;
  float* scale = nullptr;  // row_int8 only: [64]
  int32_t* sum = nullptr;  // row_int8 only: [64]
};

/// Scratch and sources of one worker.
class BlockPacker {
 public:
  BlockPacker(const TensorSource& source, const VecKernels& vec) : source_(source), vec_(vec) {}

  /// Rows [row, row+64) of a weight as `run` stores them; `term` is 1, or 2 for the codes of what
  /// the first left. Throws what the source throws.
  void pack(const Weight& weight, const PackedRun& run, int term, int64_t row,
            const BlockTarget& out);

 private:
  void pack_rows(const Weight& weight, const PackedRun& run, int term, int64_t row,
                 const BlockTarget& out);
  void pack_groups(const Weight& weight, const PackedRun& run, int64_t row, std::byte* column);

  const TensorSource& source_;
  const VecKernels& vec_;
  std::vector<float> row_;      // [k]
  std::vector<uint8_t> codes_;  // [64, k_padded]
  WeightBlock groups_;
};

}  // namespace qllm::cpu
