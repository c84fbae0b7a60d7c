// A linear as it lies packed, in memory and in .qllm files: runs of blocks of 64 outputs, so that
// whoever takes whole blocks of rows (a worker's shard) takes a part of each run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "quant/packing.h"

namespace qllm {

/// Rows [n0, n0+n) of a linear that are stored in one format; n0 and n are multiples of 64.
///
///   row_int8: codes of packing.h, n x k_padded; then scales f32 [n], 1 for padding rows; then
///             sums s32 [n], sum_k q[n, k]
///   groups:   block columns of quant/group.h, one behind the other
struct PackedRun {
  WeightFormat format;  // of one term
  int64_t n0 = 0;
  int64_t n = 0;
  int64_t k_padded = 0;  // as the format pads it

  int64_t end() const { return n0 + n; }
  bool in_groups() const { return format.kind == WeightFormat::Kind::groups; }
  /// Codes of 64 outputs (groups: with their scales).
  int64_t column_bytes() const;
  int64_t code_bytes() const { return n / kBlockN * column_bytes(); }
  /// With scales and sums.
  int64_t bytes() const;
};

struct PackedLayout {
  std::vector<PackedRun> runs;          // cover the rows
  std::vector<PackedRun> second_terms;  // int8 codes of what the first left, of some rows
  int64_t group = 0;                    // of the activations that it wants; 0: one scale per token
  int64_t k_padded = 0;                 // inputs, the most that any run pads to

  int64_t bytes() const;
};

/// The layout of all rows of a weight (rounded up to 64) under a scheme. Not of the scheme fp32.
PackedLayout packed_layout(const Scheme& scheme, const Weight& weight, const TensorSource& source);

/// The rows [n0, n0+n) of it, multiples of 64.
PackedLayout rows_of(const PackedLayout& layout, int64_t n0, int64_t n);

/// Where the parts of a run lie.
struct PackedView {
  const std::byte* codes = nullptr;
  const float* scale = nullptr;  // row_int8 only: [n]
  const int32_t* sum = nullptr;  // row_int8 only: [n]
};

/// Of a run that begins at `at`, which is aligned to 64.
PackedView view_of(const PackedRun& run, const std::byte* at);
/// Of its rows from `n0` on, a multiple of 64 within it.
PackedView from_row(const PackedRun& run, const PackedView& view, int64_t n0);

/// A checksum per block of 64 rows: over its codes, then its scales and sums. `seed` says whose
/// they are; `row` is the block's first.
uint64_t block_checksum(const PackedRun& run, const PackedView& block, int64_t row, uint64_t seed);

/// One linear that somebody packed before. Its memory outlives the source that gave it.
struct PackedLinear {
  PackedLayout layout;
  std::vector<const std::byte*> runs;          // where each of layout.runs begins
  std::vector<const std::byte*> second_terms;  // likewise
  // Per block of 64 rows of each run; empty: nothing to compare with.
  std::vector<std::span<const uint64_t>> checks;
  std::vector<std::span<const uint64_t>> second_checks;
  uint64_t seed = 0;     // of the checksums
  bool in_file = false;  // the memory is that of a mapped file
  std::string origin;    // begins messages: a path
};

/// What is said of a block whose checksum is another.
std::string damaged_block(const PackedLinear& linear, const std::string& name, int64_t row,
                          uint64_t found, uint64_t expected);

/// 64 outputs of a linear, freshly packed.
struct PackedBlock {
  size_t run = 0;  // index into runs or second_terms
  bool second_term = false;
  int64_t row = 0;  // the first, in the weight
  PackedView view;
};

}  // namespace qllm
