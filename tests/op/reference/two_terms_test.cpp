// The reference with a second term of int8 in some rows, against double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "quant/int8.h"
#include "reference/ops.h"

namespace qllm {

TEST_CASE("reference linear: rows of two terms add both products, the others one") {
  constexpr int64_t kM = 3;
  constexpr int64_t kN = 4;
  constexpr int64_t kK = 70;
  std::mt19937 random(5);
  std::uniform_int_distribution<int> code(-127, 127);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  reference::LinearWeights w;
  w.n = kN;
  w.k = kK;
  for (int64_t i = 0; i < kN * kK; ++i) {
    w.s8.push_back(static_cast<int8_t>(code(random)));
    w.second.push_back(static_cast<int8_t>(code(random)));
  }
  w.scale = {0.5F, 0.25F, 1.0F, 0.75F};
  w.second_scale = {0.0F, 0.002F, 0.0F, 0.003F};
  std::vector<float> x(kM * kK);
  std::vector<float> residual(kM * kN);
  for (float& v : x) v = normal(random);
  for (float& v : residual) v = normal(random);
  std::vector<float> y(kM * kN);
  reference::linear(w, x.data(), kM, nullptr, residual.data(), y.data());
  for (int64_t m = 0; m < kM; ++m) {
    std::vector<int8_t> q(kK);
    const double x_scale = quantize_row_s8(x.data() + m * kK, kK, q.data());
    for (int64_t i = 0; i < kN; ++i) {
      const auto at = static_cast<size_t>(m * kN + i);
      double expected = residual[at];
      double size = std::fabs(expected);
      for (int64_t k = 0; k < kK; ++k) {
        const auto e = static_cast<size_t>(i * kK + k);
        const double weight = double{w.scale[static_cast<size_t>(i)]} * w.s8[e] +
                              double{w.second_scale[static_cast<size_t>(i)]} * w.second[e];
        expected += x_scale * q[static_cast<size_t>(k)] * weight;
        size += std::fabs(x_scale * q[static_cast<size_t>(k)] * weight);
      }
      // Integer sums are exact; six float roundings of what is at most `size`.
      CHECK(std::fabs(y[at] - expected) <= 6 * size / 16777216.0);
    }
  }
}

}  // namespace qllm
