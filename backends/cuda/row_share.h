// Which rows of a linear a device holds, where several share it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/packed_linear.h"

namespace qllm::cuda {

/// Rows [begin, end) of a weight.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  friend bool operator==(const RowRange&, const RowRange&) = default;
};

/// Laid end to end in this order. Of linears each begins at a multiple of 64 and ends at one, or
/// where the weight ends.
using RowShare = std::vector<RowRange>;

int64_t rows_in(const RowShare& share);

/// Rows [row, row + n) of the weight, which lie in run `run` of its layout; whole blocks of 64.
struct RunPiece {
  size_t run = 0;
  int64_t row = 0;
  int64_t n = 0;
};

/// A run of a share: rows that are stored alike, from wherever in the weight they come. run.n0
/// counts in the share.
struct SharedRun {
  PackedRun run;
  std::vector<RunPiece> pieces;  // end to end
};

/// The part of `runs` (first or second terms of a layout) that a share takes, in its order.
std::vector<SharedRun> share_runs(const std::vector<PackedRun>& runs, const RowShare& share);

}  // namespace qllm::cuda
