// What both formats of attention on AMX share. Lines of a block are tiles as they lie: 16 of K are
// 16 units along head_dim x 16 tokens, 16 of V are 16 units along tokens x 16 elements. The
// coefficients of both (queries, weights) are parted into two terms each, a tile of x for either,
// so that no more is lost than in the other tiers. What is neither multiplied nor added up here is
// AVX-512's.
//
// Everything here has internal linkage.
#pragma once

#include "kernels/amx/tiles.h"
#include "kernels/attend_impl.h"
#include "kernels/attend_ops512.h"

namespace qllm::cpu::amx {
namespace {

struct Own {};
using Ops = AttendOps512<Own>;

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileUnits = 16;
constexpr int64_t kMaxWidth = 512;  // kMaxHeadDim of kv_layout.h
// Tiles 0 to 3 hold sums, 4 and 5 the terms of coefficients, 6 and 7 lines by turns.
constexpr int kTerm0 = 4;
constexpr int kTerm1 = 5;
constexpr int kLines = 6;

/// A tile of up to eight rows takes the registers of AVX-512, with its prefetches: half of a tile
/// of coefficients or more would be empty.
inline bool many_rows(const AttendTile& t) { return t.rows > 8; }

/// Rows in one or two tiles of equal size; of an odd number the one in the middle stands in both.
struct Halves {
  explicit Halves(int64_t all)
      : rows(all <= kTileRows ? all : (all + 1) / 2), count(all <= kTileRows ? 1 : 2), all_(all) {}
  int64_t begin(int64_t half) const { return half == 0 ? 0 : all_ - rows; }
  /// The first that the other half does not have.
  int64_t own(int64_t half) const { return half == 0 ? 0 : rows; }
  int64_t end(int64_t half) const { return begin(half) + rows; }

  int64_t rows;
  int64_t count;

 private:
  int64_t all_;
};

/// Units of a step so that all steps are equal: the largest divisor that a tile holds.
inline int64_t step_units(int64_t units) {
  int64_t step = units < kTileUnits ? units : kTileUnits;
  while (units % step != 0) --step;
  return step;
}

/// `rows` of coefficients, steps of `units`.
inline void configure(int64_t rows, int64_t units) {
  TileConfig config;
  for (int i = 0; i < kTerm0; ++i) config.set_rows(i, rows);
  for (const int i : {kTerm0, kTerm1}) config.set_shape(i, rows, 4 * units);
  for (const int i : {kLines, kLines + 1}) config.set_rows(i, units);
  load_config(config);
}

/// Sums of a half's rows over `units` of one or more groups of lines.
struct Product {
  const std::byte* x;      // of the half's first row: its first term
  int64_t second;          // bytes to the second term
  int64_t ldx;             // bytes from row to row
  const std::byte* lines;  // of the first group
  int64_t stride;          // bytes to the next group
  int64_t units;
  int64_t step;     // units
  ptrdiff_t ahead;  // to the lines to prefetch, or 0

  const std::byte* at(int64_t group, int64_t unit) const {
    return lines + group * stride + unit * kAttendLine;
  }
  void load_terms(int64_t unit) const {
    load_tile<kTerm0>(x + 4 * unit, ldx);
    load_tile<kTerm1>(x + second + 4 * unit, ldx);
  }
  /// The lines of a step and group into tile kLines or the next one.
  template <int kGroup>
  void load_lines(int64_t unit) const {
    const std::byte* from = at(kGroup, unit);
    load_tile<kLines + kGroup % 2>(from, kAttendLine);
    if (ahead == 0) return;
    for (int64_t i = 0; i < step; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(from + ahead + i * kAttendLine), _MM_HINT_T0);
    }
  }
};

}  // namespace
}  // namespace qllm::cpu::amx
