// The order in which the kernels for few tokens read their weights: up to kStreams block columns by
// turns, a piece of each, so that as many streams are on their way from memory at once. On AVX2
// measured 0.95 to 0.98 of reading alone at M = 1, one stream with prefetches 0.75 to 0.89.
//
// Everything here has internal linkage: each tier compiles its own (README.md).
#pragma once

#include <cstdint>

#include "kernels/dot.h"

namespace qllm::cpu {
namespace {

constexpr int64_t kStreams = 4;
constexpr int64_t kColumn = 64;  // outputs of a block column

/// Calls run(first, last) for groups of up to `streams` block columns.
template <typename Run>
inline void by_turns(const DotArgs& args, int64_t streams, const Run& run) {
  const int64_t columns = args.n / kColumn;
  const int64_t turns = (columns + streams - 1) / streams;
  for (int64_t i = 0; i < turns; ++i) run(columns * i / turns, columns * (i + 1) / turns);
}

/// Block columns [first, last) in pieces of `depth` inputs: piece 0 of each, then piece 1 of each.
struct Turns {
  const DotArgs& args;
  int64_t depth;
  int64_t first;
  int64_t last;

  const int8_t* weights(int64_t column, int64_t k) const {
    return args.w + column * kColumn * args.k + k * kColumn;
  }
  /// The weights of piece `i` in that order; behind the last those of the columns that follow,
  /// which may lie outside: an address to prefetch from.
  const int8_t* piece(int64_t i) const {
    const int64_t width = last - first;
    const int64_t k = i / width * depth;
    return k < args.k ? weights(first + i % width, k) : weights(last + i % width, 0);
  }
};

}  // namespace
}  // namespace qllm::cpu
