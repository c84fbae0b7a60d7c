// Attention over paged keys and values in double, from what is stored, with a bound of what the
// kernels may differ.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "emulated_cuda/paged_step.h"
#include "kernels/attention_shape.h"

namespace qllm::test {

/// Rows of queries, and of outputs that nobody has written yet.
struct AttentionRows {
  static constexpr float kUntouched = -12345.0F;

  AttentionRows(int64_t n_tokens, int64_t n_heads, int64_t head_dim, uint64_t seed)
      : ld((n_heads * head_dim + 63) / 64 * 64),
        width(n_heads * head_dim),
        q(random_rows(n_tokens * ld, seed)),
        out(std::vector<float>(static_cast<size_t>(n_tokens * ld), kUntouched)) {}
  cuda::FloatRows queries() const { return {q.data(), ld, width}; }
  cuda::FloatRows outputs() const { return {out.data(), ld, width}; }

  int64_t ld, width;
  DeviceMemory<float> q, out;

 private:
  static std::vector<float> random_rows(int64_t n, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = normal(random);
    return x;
  }
};

/// One row of attention and how far a kernel may be from it.
///
/// Queries and weights are sums of two 16-bit floats: they are off by u of themselves, 2^-22 in f16
/// and 2^-16 in bf16, and where the second is subnormal in f16 by 2^-25 of the row's largest.
/// float32 sums of n terms are off by n 2^-24 of the terms' sizes, twice that where the tensor
/// cores cut off; a score takes 2 head_dim terms, an output 2 terms a token. A score that is off by
/// e moves a weight by e^e - 1 of itself, and the weights' sum alike. exp2 and the scales take 16
/// roundings at most.
class AttentionOracle {
 public:
  AttentionOracle(const cuda::AttentionShape& shape, const PagedStep& step, size_t slice,
                  int64_t position, int64_t head, const float* q)
      : shape_(shape), step_(step), slice_(slice), kv_head_(head / shape.heads_of_kv()) {
    range_ = cuda::seen_tokens(static_cast<int>(position), shape.window);
    for (int64_t j = range_.first; j < range_.end; ++j) add_score(q, j);
    const double top = *std::max_element(score_.begin(), score_.end());
    for (double& s : score_) sum_ += s = std::exp(s - top);
  }

  /// Element d of the output.
  double value(int64_t d) const {
    double x = 0;
    for (size_t j = 0; j < score_.size(); ++j) x += score_[j] / sum_ * v(j, d);
    return x;
  }
  double bound(int64_t d) const {
    const bool f16 = shape_.kv.format != KvFormat::bf16;
    const auto n = static_cast<double>(score_.size());
    double size = 0, largest = 0;
    for (size_t j = 0; j < score_.size(); ++j) {
      size += score_[j] / sum_ * std::abs(v(j, d));
      largest = std::max(largest, std::abs(v(j, d)));
    }
    const double relative = std::expm1(2 * score_error_) + unit() + 2 * n * 0x1p-23 + 16 * 0x1p-23;
    // int8: a weight's share of its strip's largest scale times a code; codes are up to 127 / 2
    // times an ordinary one of `fill`, scales up to e^8 apart.
    const double codes = shape_.kv.is_int8() ? 127 * largest_scale_ : largest;
    return size * relative + (f16 ? n * 0x1p-25 * codes / sum_ : 0.0);
  }

 private:
  double unit() const { return shape_.kv.format == KvFormat::bf16 ? 0x1p-16 : 0x1p-22; }
  double v(size_t j, int64_t d) const {
    return step_.element(slice_, shape_.layer, kv_head_, range_.first + static_cast<int64_t>(j), d,
                         true);
  }
  void add_score(const float* q, int64_t token) {
    double s = 0, size = 0, keys = 0, largest = 0;
    for (int64_t d = 0; d < shape_.kv.head_dim; ++d) {
      const double k = step_.element(slice_, shape_.layer, kv_head_, token, d, false);
      s += q[d] * k;
      size += std::abs(q[d] * k);
      keys += std::abs(k);
      largest = std::max(largest, std::abs(double{q[d]}));
    }
    s *= shape_.scale;
    double error = shape_.scale * size * (unit() + 2 * shape_.kv.head_dim * 0x1p-23) +
                   shape_.scale * keys * largest * 0x1p-25;
    if (shape_.softcap > 0) s = shape_.softcap * std::tanh(s / shape_.softcap);
    error += std::abs(s) * 16 * 0x1p-23;
    score_.push_back(s);
    score_error_ = std::max(score_error_, error);
    if (shape_.kv.is_int8()) {
      const std::byte* head = step_.head(slice_, shape_.layer, kv_head_, token);
      largest_scale_ =
          std::max(largest_scale_,
                   double{step_.scale(head, static_cast<int>(token % kKvBlockTokens), true)});
    }
  }

  const cuda::AttentionShape& shape_;
  const PagedStep& step_;
  size_t slice_;
  int64_t kv_head_;
  cuda::TokenRange range_;
  std::vector<double> score_;  // then e^(score - largest)
  double sum_ = 0;
  double score_error_ = 0;
  double largest_scale_ = 0;
};

/// Checks the outputs of all tokens of slices whose count is 1 (`single`), or of the others, and
/// that nothing else was written. Returns the largest share of the bound that was used.
inline double check_attention(const cuda::AttentionShape& shape, const PagedStep& step,
                              const AttentionRows& rows, bool single) {
  double used = 0;
  int64_t wrong = 0, touched = 0;
  for (int64_t t = 0; t < step.n_tokens(); ++t) {
    const auto slice = static_cast<size_t>(step.slice_of[static_cast<size_t>(t)]);
    const float* out = rows.out.data() + t * rows.ld;
    if ((step.slices[slice].count == 1) != single) {
      for (int64_t i = 0; i < rows.ld; ++i) touched += out[i] != AttentionRows::kUntouched ? 1 : 0;
      continue;
    }
    for (int64_t i = rows.width; i < rows.ld; ++i) {
      touched += out[i] != AttentionRows::kUntouched ? 1 : 0;
    }
    for (int64_t h = 0; h < shape.n_heads; ++h) {
      const int64_t at = h * shape.kv.head_dim;
      const AttentionOracle oracle(shape, step, slice, step.position[static_cast<size_t>(t)], h,
                                   rows.q.data() + t * rows.ld + at);
      for (int64_t d = 0; d < shape.kv.head_dim; ++d) {
        const double share = std::abs(out[at + d] - oracle.value(d)) / oracle.bound(d);
        used = std::isnan(share) ? INFINITY : std::max(used, share);
        wrong += share <= 1 ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(touched == 0);
  CHECK(used <= 1);
  return used;
}

}  // namespace qllm::test
