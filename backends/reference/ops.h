// The ops of graph.h on float32 rows, as written there.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "graph/graph.h"

namespace qllm::reference {

/// Keys and values as float32: [layer][token][n_kv_heads * head_dim].
class FloatKvCache final : public KvCache {
 public:
  /// `as_bf16`: what is written is rounded to bf16 first.
  FloatKvCache(const KvShape& shape, bool as_bf16);
  bool as_bf16() const { return as_bf16_; }
  float* k(int64_t layer, int64_t token) { return k_.data() + offset(layer, token); }
  float* v(int64_t layer, int64_t token) { return v_.data() + offset(layer, token); }
  int64_t bytes() const override;

 private:
  int64_t offset(int64_t layer, int64_t token) const;
  bool as_bf16_;
  std::vector<float> k_;
  std::vector<float> v_;
};

/// A linear's weights in one of the three forms.
struct LinearWeights {
  int64_t n = 0;
  int64_t k = 0;
  int64_t group = 0;           // inputs of a group; 0: none
  int64_t k_padded = 0;        // in groups: a multiple of group
  std::vector<float> f32;      // [n, k], or empty
  std::vector<int8_t> s8;      // [n, k], or empty
  std::vector<int16_t> codes;  // in groups: q - zero [n, k_padded]
  std::vector<float> scale;    // [n] beside s8, [n, k_padded/group] in groups
  std::vector<float> minimum;  // [n, k_padded/group] in groups
};

/// `gain` may be null: all ones.
void rms_norm(const float* x, const float* gain, float eps, int64_t n, float* y);
/// y[m, n] of m rows; bias and residual may be null.
void linear(const LinearWeights& w, const float* x, int64_t m, const float* bias,
            const float* residual, float* y);
/// One token: rotates q of qkv into `q`, writes k and v to the cache at `position`.
void rope_kv_write(const RopeKvWriteOp& op, const float* qkv, int64_t position, float* q,
                   FloatKvCache& kv);
/// One token and head over positions [0, length).
void attend(const AttentionOp& op, const float* q, int64_t head, int64_t length, FloatKvCache& kv,
            float* out);
/// `hadamard`: SwiGluOp's.
void swiglu(const float* gate_up, int64_t d_ff, int64_t hadamard, float* y);

}  // namespace qllm::reference
