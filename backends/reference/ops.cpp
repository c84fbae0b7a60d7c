#include "reference/ops.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "quant/float_bits.h"
#include "quant/group_quant.h"
#include "quant/int8.h"

namespace qllm::reference {
namespace {

constexpr int kLanes = 16;  // independent partial sums, so that the compiler may use vectors

float dot_f32(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  float sum = 0.0F;
  for (float lane : lanes) sum += lane;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

int32_t dot_s8(const int8_t* a, const int8_t* b, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += int32_t{a[i]} * int32_t{b[i]};
  return sum;
}

float finish(float value, int64_t i, int64_t m, int64_t n, const float* bias,
             const float* residual) {
  if (bias != nullptr) value += bias[i];
  if (residual != nullptr) value += residual[m * n + i];
  return value;
}

void linear_f32(const LinearWeights& w, const float* x, int64_t rows, const float* bias,
                const float* residual, float* y) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < w.n; ++i) {
    const float* wi = w.f32.data() + i * w.k;
    for (int64_t m = 0; m < rows; ++m) {
      y[m * w.n + i] = finish(dot_f32(x + m * w.k, wi, w.k), i, m, w.n, bias, residual);
    }
  }
}

void linear_s8(const LinearWeights& w, const float* x, int64_t rows, const float* bias,
               const float* residual, float* y) {
  std::vector<int8_t> q(static_cast<size_t>(rows * w.k));
  std::vector<float> x_scale(static_cast<size_t>(rows));
  for (int64_t m = 0; m < rows; ++m) {
    x_scale[static_cast<size_t>(m)] = quantize_row_s8(x + m * w.k, w.k, q.data() + m * w.k);
  }
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < w.n; ++i) {
    const int8_t* wi = w.s8.data() + i * w.k;
    for (int64_t m = 0; m < rows; ++m) {
      const int8_t* xm = q.data() + m * w.k;
      const float scale = x_scale[static_cast<size_t>(m)];
      const float value =
          static_cast<float>(dot_s8(xm, wi, w.k)) * (scale * w.scale[static_cast<size_t>(i)]);
      float& out = y[m * w.n + i];
      out = finish(value, i, m, w.n, bias, residual);
      if (w.second.empty() || w.second_scale[static_cast<size_t>(i)] == 0.0F) continue;
      out += static_cast<float>(dot_s8(xm, w.second.data() + i * w.k, w.k)) *
             (scale * w.second_scale[static_cast<size_t>(i)]);
    }
  }
}

/// Tokens by groups: codes [rows, k_padded], scales and sums of codes [rows, k_padded/group].
struct GroupedActivations {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
};

GroupedActivations quantize_tokens(const LinearWeights& w, const float* x, int64_t rows) {
  const int64_t groups = w.k_padded / w.group;
  GroupedActivations a;
  a.q.resize(static_cast<size_t>(rows * w.k_padded));
  a.scale.resize(static_cast<size_t>(rows * groups));
  a.sum.resize(static_cast<size_t>(rows * groups));
  for (int64_t m = 0; m < rows; ++m) {
    quantize_groups_s8(x + m * w.k, w.k, w.k_padded, w.group, a.q.data() + m * w.k_padded,
                       a.scale.data() + m * groups, a.sum.data() + m * groups);
  }
  return a;
}

/// sum_g x_scale (scale sum_k (q - zero) x + min X): integers exact, floats in double.
float dot_groups(const LinearWeights& w, int64_t i, const GroupedActivations& a, int64_t m) {
  const int64_t groups = w.k_padded / w.group;
  const int16_t* codes = w.codes.data() + i * w.k_padded;
  const int8_t* x = a.q.data() + m * w.k_padded;
  double sum = 0.0;
  for (int64_t g = 0; g < groups; ++g, codes += w.group, x += w.group) {
    int32_t dot = 0;
    for (int64_t j = 0; j < w.group; ++j) dot += int32_t{codes[j]} * int32_t{x[j]};
    const auto wg = static_cast<size_t>(i * groups + g);
    const auto xg = static_cast<size_t>(m * groups + g);
    sum += static_cast<double>(a.scale[xg]) * (static_cast<double>(w.scale[wg]) * dot +
                                               static_cast<double>(w.minimum[wg]) * a.sum[xg]);
  }
  return static_cast<float>(sum);
}

void linear_groups(const LinearWeights& w, const float* x, int64_t rows, const float* bias,
                   const float* residual, float* y) {
  const GroupedActivations a = quantize_tokens(w, x, rows);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < w.n; ++i) {
    for (int64_t m = 0; m < rows; ++m) {
      y[m * w.n + i] = finish(dot_groups(w, i, a, m), i, m, w.n, bias, residual);
    }
  }
}

/// To bf16 and back, round to nearest even; NaN does not occur in what is cached.
void round_to_bf16(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    auto bits = std::bit_cast<uint32_t>(x[i]);
    bits += 0x7FFFU + ((bits >> 16) & 1U);
    x[i] = std::bit_cast<float>(bits & 0xFFFF0000U);
  }
}

/// x <- x H, H[i, j] = (-1)^popcount(i & j) / sqrt(n), n at most 64.
void hadamard_block(float* x, int64_t n) {
  double before[64];
  std::copy(x, x + n, before);
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    for (int64_t j = 0; j < n; ++j) {
      sum += std::popcount(static_cast<uint64_t>(i & j)) % 2 != 0 ? -before[j] : before[j];
    }
    x[i] = static_cast<float>(sum / std::sqrt(static_cast<double>(n)));
  }
}

/// To int8 with a scale for these values, and back.
void round_to_int8(float* x, int64_t n) {
  std::vector<int8_t> q(static_cast<size_t>(n));
  const float scale = quantize_row_s8(x, n, q.data());
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(q[static_cast<size_t>(i)]) * scale;
}

/// To IEEE half precision and back; what is beyond its range becomes its largest.
void round_to_f16(float* x, int64_t n) {
  constexpr float kLargest = 65504.0F;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = half_to_float(float_to_half(std::clamp(x[i], -kLargest, kLargest)));
  }
}

void round_head(KvRounding rounding, float* x, int64_t n) {
  if (rounding == KvRounding::f16) round_to_f16(x, n);
  if (rounding == KvRounding::bf16) round_to_bf16(x, n);
  if (rounding == KvRounding::int8) round_to_int8(x, n);
}

/// int8 keys of whole blocks of 64 are quantized turned (cpu/kv_layout.h kv_turns_keys) and turned
/// back: the matrix is its own inverse.
void round_key(KvRounding rounding, float* x, int64_t n) {
  const bool turned = rounding == KvRounding::int8 && n % 64 == 0;
  for (int64_t i = 0; turned && i < n; i += 64) hadamard_block(x + i, 64);
  round_head(rounding, x, n);
  for (int64_t i = 0; turned && i < n; i += 64) hadamard_block(x + i, 64);
}

void rotate_head(const RopeKvWriteOp& op, const float* x, int64_t position, float* y) {
  std::copy(x, x + op.head_dim, y);
  const auto half = static_cast<int64_t>(op.inv_freq.size());
  for (int64_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * op.inv_freq[static_cast<size_t>(i)];
    const float c = std::cos(angle);
    const float s = std::sin(angle);
    const int64_t a = op.style == RopeStyle::adjacent ? 2 * i : i;
    const int64_t b = op.style == RopeStyle::adjacent ? 2 * i + 1 : i + half;
    y[a] = x[a] * c - x[b] * s;
    y[b] = x[a] * s + x[b] * c;
  }
}

}  // namespace

void rms_norm(const float* x, const float* gain, float eps, int64_t n, float* y) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const auto inv =
      static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(n) + static_cast<double>(eps)));
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inv * (gain == nullptr ? 1.0F : gain[i]);
}

void linear(const LinearWeights& w, const float* x, int64_t m, const float* bias,
            const float* residual, float* y) {
  if (w.group != 0) {
    linear_groups(w, x, m, bias, residual, y);
  } else if (w.s8.empty()) {
    linear_f32(w, x, m, bias, residual, y);
  } else {
    linear_s8(w, x, m, bias, residual, y);
  }
}

void rope_kv_write(const RopeKvWriteOp& op, const float* qkv, int64_t position, float* q,
                   const FloatKv& kv) {
  const float* x = qkv;
  for (int64_t h = 0; h < op.n_heads; ++h, x += op.head_dim, q += op.head_dim) {
    rotate_head(op, x, position, q);
  }
  float* k = kv.k(op.layer, position);
  for (int64_t h = 0; h < op.n_kv_heads; ++h, x += op.head_dim, k += op.head_dim) {
    rotate_head(op, x, position, k);
  }
  const int64_t width = int64_t{op.n_kv_heads} * op.head_dim;
  std::copy(x, x + width, kv.v(op.layer, position));
  for (int64_t h = 0; h < op.n_kv_heads; ++h) {
    round_key(kv.rounding(), kv.k(op.layer, position) + h * op.head_dim, op.head_dim);
    round_head(kv.rounding(), kv.v(op.layer, position) + h * op.head_dim, op.head_dim);
  }
}

void attend(const AttentionOp& op, const float* q, int64_t head, int64_t length, const FloatKv& kv,
            float* out) {
  const int64_t kv_offset = head / (op.n_heads / op.n_kv_heads) * op.head_dim;
  const int64_t first = op.window > 0 ? std::max<int64_t>(0, length - op.window) : 0;
  std::vector<float> score(static_cast<size_t>(length - first));
  for (int64_t j = first; j < length; ++j) {
    float s = op.scale * dot_f32(q, kv.k(op.layer, j) + kv_offset, op.head_dim);
    if (op.softcap > 0.0F) s = op.softcap * std::tanh(s / op.softcap);
    score[static_cast<size_t>(j - first)] = s;
  }
  const float top = *std::max_element(score.begin(), score.end());
  double sum = 0.0;
  for (float& s : score) sum += s = std::exp(s - top);
  std::fill(out, out + op.head_dim, 0.0F);
  for (int64_t j = first; j < length; ++j) {
    const auto p = static_cast<float>(score[static_cast<size_t>(j - first)] / sum);
    const float* v = kv.v(op.layer, j) + kv_offset;
    for (int64_t d = 0; d < op.head_dim; ++d) out[d] += p * v[d];
  }
}

void swiglu(const float* gate_up, int64_t d_ff, int64_t hadamard, float* y) {
  for (int64_t i = 0; i < d_ff; ++i) {
    const float g = gate_up[i / 64 * 128 + i % 64];
    const float u = gate_up[i / 64 * 128 + 64 + i % 64];
    y[i] = g / (1.0F + std::exp(-g)) * u;
  }
  for (int64_t i = 0; hadamard != 0 && i < d_ff; i += hadamard) hadamard_block(y + i, hadamard);
}

}  // namespace qllm::reference
