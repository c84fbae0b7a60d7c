// How far logits of the cpu backend and of the reference under the same scheme may differ.
//
// Integer sums are equal and both store the same keys and values, so rows differ by float rounding
// only: some (groups + 4) 2^-24 a linear, below 1e-5, until it carries an activation over a
// rounding boundary. What is behind such a flip, in its row and in rows that see it, is rounded
// anew: of two independent roundings each value's errors differ by sqrt(2) step / sqrt(12), step =
// 3 sigma / 127, so by 0.01 of its size for each of the nine linears of two layers; in quadrature
// 0.03. A value lies within 1e-6 * 127 of a boundary with a probability of 1e-4, and 1,000 are
// quantized for each token: a run of 40 tokens meets a few flips at most, and the tokens before the
// first agree: more than half of all where there are many runs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace qllm::test {

/// Over many rows of logits: how many agree but for float rounding, and the largest difference of
/// any, relative to its norm.
struct Agreement {
  static constexpr double kClose = 1e-5;
  static constexpr double kRoundedAnew = 0.03;

  int64_t rows = 0;
  int64_t close = 0;
  double largest = 0;

  void compare(const std::vector<float>& got, const std::vector<float>& want, int64_t vocab) {
    for (size_t row = 0; row < want.size(); row += static_cast<size_t>(vocab)) {
      double diff = 0, norm = 0;
      for (size_t i = row; i < row + static_cast<size_t>(vocab); ++i) {
        diff += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
        norm += double{want[i]} * want[i];
      }
      const double d = std::sqrt(diff / norm);
      ++rows;
      close += d < kClose ? 1 : 0;
      largest = std::isnan(d) ? HUGE_VAL : std::max(largest, d);  // max() would pass over NaN
    }
  }

  bool holds() const { return largest < kRoundedAnew && 2 * close > rows; }
};

}  // namespace qllm::test
