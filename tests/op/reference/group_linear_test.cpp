// The reference in groups against dequantized weights and activations in double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "quant/group_quant.h"
#include "reference/ops.h"

namespace qllm {
namespace {

std::vector<float> random_values(int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(random);
  return values;
}

struct Problem {
  GroupFormat format;
  int64_t m, n, k;
};

/// The weights as the oracle holds them, and their values [n, k_padded].
reference::LinearWeights quantize(const Problem& p, std::mt19937& random,
                                  std::vector<float>* values) {
  reference::LinearWeights w;
  w.n = p.n;
  w.k = p.k;
  w.group = p.format.group;
  w.k_padded = p.format.padded_k(p.k);
  values->resize(static_cast<size_t>(p.n * w.k_padded));
  GroupRow row;
  for (int64_t i = 0; i < p.n; ++i) {
    quantize_group_row(p.format, random_values(p.k, random).data(), p.k, &row);
    for (uint8_t q : row.q) w.codes.push_back(static_cast<int16_t>(q - p.format.zero()));
    for (int64_t g = 0; g < w.k_padded / w.group; ++g) {
      const GroupScale s = group_scale(p.format, row, g);
      w.scale.push_back(s.scale);
      w.minimum.push_back(s.min);
    }
    dequantize_group_row(p.format, row, values->data() + i * w.k_padded);
  }
  return w;
}

}  // namespace

TEST_CASE("reference linear in groups: equals the product of what was stored") {
  std::mt19937 random(11);
  for (const Problem& p : {Problem{{4, 32, GroupScales::f16_min}, 3, 5, 96},
                           Problem{{4, 128, GroupScales::f16}, 2, 7, 300},
                           Problem{{8, 32, GroupScales::f16}, 1, 3, 40}}) {
    std::vector<float> weights;
    const reference::LinearWeights w = quantize(p, random, &weights);
    const std::vector<float> x = random_values(p.m * p.k, random);
    const std::vector<float> bias = random_values(p.n, random);
    const std::vector<float> residual = random_values(p.m * p.n, random);
    std::vector<float> y(static_cast<size_t>(p.m * p.n));
    reference::linear(w, x.data(), p.m, bias.data(), residual.data(), y.data());
    const auto groups = static_cast<size_t>(w.k_padded / w.group);
    std::vector<int8_t> q(static_cast<size_t>(w.k_padded));
    std::vector<float> scale(groups);
    std::vector<int32_t> sum(groups);
    for (int64_t m = 0; m < p.m; ++m) {
      quantize_groups_s8(x.data() + m * p.k, p.k, w.k_padded, w.group, q.data(), scale.data(),
                         sum.data());
      for (int64_t i = 0; i < p.n; ++i) {
        const auto at = static_cast<size_t>(m * p.n + i);
        double expected = bias[static_cast<size_t>(i)] + static_cast<double>(residual[at]);
        double magnitude = std::fabs(expected);
        for (int64_t k = 0; k < w.k_padded; ++k) {
          const auto g = static_cast<size_t>(k / w.group);
          const double term =
              static_cast<double>(weights[static_cast<size_t>(i * w.k_padded + k)]) * scale[g] *
              q[static_cast<size_t>(k)];
          expected += term;
          magnitude += std::fabs(term);
        }
        // A dequantized weight is two roundings off (scale * q, + min: each 2^-24 of at most twice
        // its magnitude, where minimum and product cancel); three more for the sums.
        CHECK(std::fabs(y[at] - expected) <= std::ldexp(8 * (magnitude + 3), -24));
      }
    }
  }
}

}  // namespace qllm
