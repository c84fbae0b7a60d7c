// How the keys and values of 64 tokens lie in memory for one layer and one KV head: what attention
// streams, and what RoPE and the KV write make. docs/kernels.md has the equations with their why.
//
// A line is 64 bytes: 16 lanes of 4 bytes, and 4 bytes are a unit of u values, u = 2 in bf16 and 4
// in int8. Lanes of K are tokens and units run along head_dim; lanes of V are elements of head_dim
// and units run along tokens. So both products of attention are sums over units in each lane, lines
// are read in order, and nothing is ever summed across lanes:
//   K:       ((t/16) * (hdp/u) + d/u) * 64 + (t%16) * 4 + (d%u) * 4/u       hdp: head_dim padded to
//   16 V:       ((d/16) * (64/u)  + t/u) * 64 + (d%16) * 4 + (t%u) * 4/u       from kv_part_bytes
//   on scales:  int8 only: float of K [64], float of V [64], from 2 kv_part_bytes on
// An int8 value is quantized by its token's scale for this head (quant/int8.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/kv_format.h"
#include "kernels/vec.h"

namespace qllm::cpu {

inline constexpr int64_t kKvLanes = 16;
/// The largest head that the kernels take: int32 sums of 16-bit by 8-bit products stay exact, and
/// scratch stays small.
inline constexpr int64_t kMaxHeadDim = 512;

constexpr int64_t kv_head_dim_padded(int64_t head_dim) {
  return (head_dim + kKvLanes - 1) / kKvLanes * kKvLanes;
}

/// Values in a unit of four bytes.
constexpr int64_t kv_unit(KvFormat format) { return format == KvFormat::bf16 ? 2 : 4; }

/// Bytes of K, and as many of V, of one (block, layer, KV head).
constexpr int64_t kv_part_bytes(KvFormat format, int64_t head_dim) {
  return kKvBlockTokens * kv_head_dim_padded(head_dim) * 4 / kv_unit(format);
}

/// Bytes of one (block, layer, KV head): K, V and the scales. A multiple of 512.
constexpr int64_t kv_head_bytes(KvFormat format, int64_t head_dim) {
  const int64_t scales = format == KvFormat::int8 ? 2 * kKvBlockTokens * 4 : 0;
  return 2 * kv_part_bytes(format, head_dim) + scales;
}

/// Where element d of token t of the block begins, from the begin of the (block, layer, KV head).
constexpr int64_t kv_k_offset(KvFormat format, int64_t head_dim, int64_t t, int64_t d) {
  const int64_t u = kv_unit(format);
  const int64_t line = t / kKvLanes * (kv_head_dim_padded(head_dim) / u) + d / u;
  return line * 64 + t % kKvLanes * 4 + d % u * (4 / u);
}
constexpr int64_t kv_v_offset(KvFormat format, int64_t head_dim, int64_t t, int64_t d) {
  const int64_t u = kv_unit(format);
  const int64_t line = d / kKvLanes * (kKvBlockTokens / u) + t / u;
  return kv_part_bytes(format, head_dim) + line * 64 + d % kKvLanes * 4 + t % u * (4 / u);
}

/// Where the scale of token t for K (value = false) or V begins. int8 only.
constexpr int64_t kv_scale_offset(int64_t head_dim, int64_t t, bool value) {
  return 2 * kv_part_bytes(KvFormat::int8, head_dim) + (value ? kKvBlockTokens * 4 : 0) + t * 4;
}

/// Keys that are to be quantized are first turned by a normalised Hadamard matrix in blocks of 64,
/// and queries alike, which leaves every q . k as it is and evens out what a scale must span
/// (docs/quality.md has the figures). Not where blocks of 64 do not fit.
constexpr bool kv_turns_keys(KvFormat format, int64_t head_dim) {
  return format == KvFormat::int8 && head_dim % 64 == 0;
}

/// Writes the key, or the value, of one token: x [head_dim], 0 <= token < 64, head the begin of the
/// (block, layer, KV head). head_dim at most kMaxHeadDim. Allocates nothing. Tokens may be written
/// by several threads.
///
/// Attention multiplies values of tokens that a row does not see by zero, so **a block never holds
/// a value that is infinite or NaN**, whatever tokens it holds or held: it begins as zeros, values
/// are written as finite ones, and what comes from outside is made so. Scores of such tokens are
/// left out by selection: keys may be anything.
void write_kv_key(const VecKernels& vec, KvFormat format, int64_t head_dim, const float* x,
                  int64_t token, std::byte* head) noexcept;
void write_kv_value(const VecKernels& vec, KvFormat format, int64_t head_dim, const float* x,
                    int64_t token, std::byte* head) noexcept;

/// For bytes from outside: values that are no finite numbers, or in int8 their scales, as they
/// would have been written. `head`: the begin of a (block, layer, KV head).
void make_kv_values_finite(KvFormat format, int64_t head_dim, std::byte* head) noexcept;

}  // namespace qllm::cpu
