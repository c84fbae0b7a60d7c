// What a warp does in both attention kernels: scores of 16 rows with strips of 16 tokens, a softmax
// that goes on from strip to strip, sums of values. Rows and tokens meet in tensor-core products
// whose operands lie in memory as lanes need them (kv_layout.h): with g = lane / 4, t = lane % 4 a
// lane holds rows g and g + 8, tokens 2t, 2t + 1, 8 + 2t, 9 + 2t of a strip, and the same elements
// of 16 of an output.
//
// Queries and weights are floats of 24 bits, the operands 16-bit floats: each number is the sum of
// two of them, so that a product is right to 2^-22 (f16; int8 codes are f16 exactly) or 2^-16
// (bf16). docs/cuda.md has the bounds.
#pragma once

#include <cmath>

#include "kernels/attention_shape.h"
#include "kernels/device_half.h"

namespace qllm::cuda {

inline constexpr float kLog2e = 1.44269504F;

/// An operand a of 16 x 16, as the sum of two.
struct Terms {
  unsigned high[4];
  unsigned low[4];
};

/// Two numbers as pairs of 16-bit floats: x = high + low but for 2^-22 (2^-16) of it.
template <KvFormat kFormat>
__device__ inline void split_pair(float x, float y, unsigned& high, unsigned& low) {
  if constexpr (kFormat == KvFormat::bf16) {
    high = pack_bf16(x, y);
    const float2 h = unpack_bf16(high);
    low = pack_bf16(x - h.x, y - h.y);
  } else {
    high = pack_f16(x, y);
    const float2 h = unpack_f16(high);
    low = pack_f16(x - h.x, y - h.y);
  }
}

template <KvFormat kFormat>
__device__ inline void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if constexpr (kFormat == KvFormat::bf16) {
    mma_bf16(d, a, b);
  } else {
    mma_f16(d, a, b);
  }
}

/// d[0] and d[1] take the tile's two products with a; small terms first.
template <KvFormat kFormat>
__device__ inline void multiply_tile(float (&d)[2][4], const Terms& a, const unsigned (&b)[2][2]) {
  multiply<kFormat>(d[0], a.low, b[0]);
  multiply<kFormat>(d[1], a.low, b[1]);
  multiply<kFormat>(d[0], a.high, b[0]);
  multiply<kFormat>(d[1], a.high, b[1]);
}

/// A lane's part of a tile.
template <KvFormat kFormat>
struct LaneTile {
  uint4 bits = {};

  __device__ void load(const std::byte* tile, int lane) {
    bits = reinterpret_cast<const uint4*>(tile)[lane];
  }
  __device__ void operands(unsigned (&b)[2][2]) const {
    b[0][0] = bits.x;
    b[0][1] = bits.y;
    b[1][0] = bits.z;
    b[1][1] = bits.w;
  }
};
template <>
struct LaneTile<KvFormat::int8> {
  uint2 bits = {};

  __device__ void load(const std::byte* tile, int lane) {
    bits = reinterpret_cast<const uint2*>(tile)[lane];
  }
  __device__ void operands(unsigned (&b)[2][2]) const {
    unpack_s8(bits.x, b[0]);
    unpack_s8(bits.y, b[1]);
  }
};

/// Bytes of a tile in memory.
template <KvFormat kFormat>
inline constexpr int kTileBytes = kKvTile* kKvTile*(kFormat == KvFormat::int8 ? 1 : 2);

__device__ inline float quad_max(float v) {
  v = fmaxf(v, shuffle_xor(v, 1));
  return fmaxf(v, shuffle_xor(v, 2));
}
__device__ inline float quad_sum(float v) {
  v += shuffle_xor(v, 1);
  return v + shuffle_xor(v, 2);
}

/// Rows g and g + 8 of the 16 that a warp takes of a slice.
struct LaneRows {
  bool used[2];
  int64_t token[2];  // in the step
  int head[2];       // of the query
  TokenRange seen[2];
  const float* q[2];  // null: no such row
  float shrink[2];    // powers of two that bring the largest element of q near 1
  float unit[2];      // from products of shrunk queries to scores; without a cap to log2 of e^score
  float cap, per_cap;  // of scores as log2; 0: none

  /// `first_row` is the warp's first in the slice.
  __device__ LaneRows(const AttentionShape& shape, const FloatRows& queries,
                      const DeviceSlice& slice, int kv_head, int first_row, int lane) {
    cap = shape.softcap * kLog2e;
    per_cap = shape.softcap > 0 ? 1.0F / shape.softcap : 0.0F;
    const int group = shape.heads_of_kv();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first_row + lane / 4 + 8 * i;
      used[i] = row < slice.count * group;
      const int of_slice = used[i] ? row / group : 0;
      token[i] = slice.first + of_slice;
      head[i] = kv_head * group + row % group;
      seen[i] = used[i] ? seen_tokens(slice.length + of_slice, shape.window) : TokenRange{};
      q[i] = used[i] ? queries.data + token[i] * queries.ld +
                           static_cast<int64_t>(head[i]) * shape.kv.head_dim
                     : nullptr;
      set_unit(i, largest(q[i], shape.kv.head_dim, lane), shape);
    }
  }

  /// Elements 16 step + 4t .. + 3 of rows g and g + 8 as operand a: the order of K's tiles.
  template <KvFormat kFormat>
  __device__ Terms terms(int step, int head_dim, int lane) const {
    Terms out;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 x = load4(q[i], step * kKvTile + lane % 4 * 4, head_dim);
      const float f = shrink[i];
      split_pair<kFormat>(x.x * f, x.y * f, out.high[i], out.low[i]);
      split_pair<kFormat>(x.z * f, x.w * f, out.high[2 + i], out.low[2 + i]);
    }
    return out;
  }

 private:
  /// Four elements from d on; those beyond the head are 0.
  __device__ static float4 load4(const float* q, int d, int head_dim) {
    float4 x = make_float4(0, 0, 0, 0);
    if (q == nullptr || d >= head_dim) return x;
    if (head_dim % 4 == 0) return *reinterpret_cast<const float4*>(q + d);
    x.x = q[d];
    if (d + 1 < head_dim) x.y = q[d + 1];
    if (d + 2 < head_dim) x.z = q[d + 2];
    if (d + 3 < head_dim) x.w = q[d + 3];
    return x;
  }
  /// The largest of a row, whose elements four lanes share.
  __device__ static float largest(const float* q, int head_dim, int lane) {
    float most = 0;
    for (int d = lane % 4 * 4; d < head_dim; d += kKvTile) {
      const float4 x = load4(q, d, head_dim);
      most = fmaxf(fmaxf(most, fmaxf(fabsf(x.x), fabsf(x.y))), fmaxf(fabsf(x.z), fabsf(x.w)));
    }
    return quad_max(most);
  }
  __device__ void set_unit(int i, float most, const AttentionShape& shape) {
    // The exponent of `most`, kept where its inverse is a normal number.
    const unsigned exponent = __float_as_uint(most) & 0x7f800000U;
    const unsigned kept = min(max(exponent, 1U << 23U), 253U << 23U);
    shrink[i] = __uint_as_float((254U << 23U) - kept);
    unit[i] = __uint_as_float(kept) * shape.scale * (shape.softcap > 0 ? 1.0F : kLog2e);
  }
};

/// From sums of products to log2 of e^score, in place; -infinity where a row does not see a token.
/// `first` is the strips' first token, `k_scale` its scale (int8), `all_seen`: nothing is hidden.
template <KvFormat kFormat, int kStrips>
__device__ inline void finish_scores(float (&s)[kStrips][2][4], const LaneRows& rows, int first,
                                     const float* k_scale, bool all_seen, int lane) {
#pragma unroll
  for (int at = 0; at < kStrips * 2; ++at) {
    const int column = at * 8 + lane % 4 * 2;
    float2 scale = make_float2(1, 1);
    if constexpr (kFormat == KvFormat::int8) {
      scale = *reinterpret_cast<const float2*>(k_scale + column);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = s[at / 2][at % 2][i];
      float x = score * rows.unit[i / 2];
      if constexpr (kFormat == KvFormat::int8) x *= i % 2 == 0 ? scale.x : scale.y;
      if (rows.cap > 0) x = rows.cap * tanhf(x * rows.per_cap);
      const TokenRange seen = rows.seen[i / 2];
      const int token = first + column + i % 2;
      score = all_seen || (token >= seen.first && token < seen.end) ? x : -INFINITY;
    }
  }
}

/// The softmax of rows g and g + 8 so far.
struct Softmax {
  float top[2] = {-INFINITY, -INFINITY};  // the largest score, as log2
  float weight[2] = {0, 0};               // sum of 2^(score - top), of this lane's tokens only

  /// Scores become weights 2^(score - top). Returns in `fade` by what earlier sums shrink.
  template <int kStrips>
  __device__ void weigh(float (&s)[kStrips][2][4], float (&fade)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = top[r];
#pragma unroll
      for (int at = 0; at < kStrips * 2; ++at) {
        most = fmaxf(most, fmaxf(s[at / 2][at % 2][2 * r], s[at / 2][at % 2][2 * r + 1]));
      }
      most = quad_max(most);
      const float base = most == -INFINITY ? 0.0F : most;  // a row that has seen nothing yet
      fade[r] = exp2f(top[r] - base);
      top[r] = most;
      float sum = 0;
#pragma unroll
      for (int at = 0; at < kStrips * 2; ++at) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          float& score = s[at / 2][at % 2][i];
          score = exp2f(score - base);
          sum += score;
        }
      }
      weight[r] = weight[r] * fade[r] + sum;
    }
  }
};

/// Weights as operands of the products with values.
template <KvFormat kFormat, int kStrips>
struct WeightTerms {
  Terms terms[kStrips];
  float unit = 1.0F;  // int8: products of codes times this are values

  /// int8: a weight takes its token's scale, over the largest of these strips so that it stays
  /// within 1. `v_scale` is the first token's.
  __device__ WeightTerms(const float (&s)[kStrips][2][4], const float* v_scale, int lane) {
    float2 scale[kStrips * 2];
    float shrink = 1.0F;
    if constexpr (kFormat == KvFormat::int8) {
      float most = 0;
#pragma unroll
      for (int at = 0; at < kStrips * 2; ++at) {
        scale[at] = *reinterpret_cast<const float2*>(v_scale + at * 8 + lane % 4 * 2);
        most = fmaxf(most, fmaxf(fabsf(scale[at].x), fabsf(scale[at].y)));
      }
      unit = quad_max(most);
      shrink = unit > 0 ? 1.0F / unit : 0.0F;
    }
#pragma unroll
    for (int at = 0; at < kStrips * 2; ++at) {
      const float(&p)[4] = s[at / 2][at % 2];
      Terms& to = terms[at / 2];
      const int reg = at % 2 * 2;
      float x = 1.0F, y = 1.0F;
      if constexpr (kFormat == KvFormat::int8) {
        x = scale[at].x * shrink;
        y = scale[at].y * shrink;
      }
      split_pair<kFormat>(p[0] * x, p[1] * y, to.high[reg], to.low[reg]);
      split_pair<kFormat>(p[2] * x, p[3] * y, to.high[reg + 1], to.low[reg + 1]);
    }
  }
};

/// 16 elements of the outputs of rows g and g + 8 take the values of some strips: add() for each,
/// then finish().
template <KvFormat kFormat>
struct OutputTile {
  float (&sum)[2][4];
  float part[2][4] = {};  // int8: in codes

  __device__ explicit OutputTile(float (&to)[2][4], const float (&fade)[2]) : sum(to) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i / 4][i % 4] *= fade[i % 4 / 2];
  }
  __device__ void add(const Terms& weights, const LaneTile<kFormat>& values) {
    unsigned b[2][2];
    values.operands(b);
    multiply_tile<kFormat>(kFormat == KvFormat::int8 ? part : sum, weights, b);
  }
  __device__ void finish(float unit) {
    if constexpr (kFormat == KvFormat::int8) {
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i / 4][i % 4] += unit * part[i / 4][i % 4];
    }
  }
};

}  // namespace qllm::cuda
