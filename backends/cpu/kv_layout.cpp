#include "kv_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

namespace qllm::cpu {
namespace {

/// One token's values in the form of the cache, zeros behind head_dim.
struct Stored {
  alignas(64) uint16_t bf16[kMaxHeadDim];
  alignas(64) uint8_t s8[kMaxHeadDim];
  float scale = 1.0F;
};

void convert(const VecKernels& vec, KvFormat format, int64_t head_dim, const float* x,
             Stored* out) noexcept {
  const int64_t padded = kv_head_dim_padded(head_dim);
  if (format == KvFormat::bf16) {
    vec.to_bf16(x, head_dim, out->bf16);
    std::fill(out->bf16 + head_dim, out->bf16 + padded, uint16_t{0});
    return;
  }
  out->scale = vec.quantize_u8(x, head_dim, padded, out->s8);
  for (int64_t i = 0; i < padded; ++i) out->s8[i] ^= 0x80;  // q + 128 -> q
}

/// Infinity as the largest finite number, NaN as 0: what int8 makes of them too (quant/int8.h).
uint16_t finite_bf16(uint16_t x) noexcept {
  const int magnitude = x & 0x7fff;
  if (magnitude < 0x7f80) return x;
  return magnitude == 0x7f80 ? static_cast<uint16_t>(x - 1) : uint16_t{0};
}

/// Units of K of one token lie a line apart.
template <typename T>
void scatter_key(const T* x, int64_t padded, std::byte* to) noexcept {
  constexpr auto kUnit = static_cast<int64_t>(4 / sizeof(T));
  for (int64_t i = 0; i < padded / kUnit; ++i) std::memcpy(to + i * 64, x + i * kUnit, 4);
}

/// Values of one token lie a unit apart, 16 in a line.
template <typename T>
void scatter_value(const T* x, int64_t padded, std::byte* to) noexcept {
  constexpr auto kUnit = static_cast<int64_t>(4 / sizeof(T));
  for (int64_t d = 0; d < padded; ++d) {
    std::byte* at = to + d / kKvLanes * (kKvBlockTokens / kUnit) * 64 + d % kKvLanes * 4;
    std::memcpy(at, x + d, sizeof(T));
  }
}

}  // namespace

void write_kv_key(const VecKernels& vec, KvFormat format, int64_t head_dim, const float* x,
                  int64_t token, std::byte* head) noexcept {
  Stored stored;
  convert(vec, format, head_dim, x, &stored);
  const int64_t padded = kv_head_dim_padded(head_dim);
  std::byte* to = head + kv_k_offset(format, head_dim, token, 0);
  if (format == KvFormat::bf16) return scatter_key(stored.bf16, padded, to);
  scatter_key(stored.s8, padded, to);
  std::memcpy(head + kv_scale_offset(head_dim, token, false), &stored.scale, sizeof(float));
}

void write_kv_value(const VecKernels& vec, KvFormat format, int64_t head_dim, const float* x,
                    int64_t token, std::byte* head) noexcept {
  Stored stored;
  convert(vec, format, head_dim, x, &stored);
  const int64_t padded = kv_head_dim_padded(head_dim);
  std::byte* to = head + kv_v_offset(format, head_dim, token, 0);
  if (format == KvFormat::bf16) {
    for (uint16_t& v : std::span(stored.bf16, static_cast<size_t>(head_dim))) v = finite_bf16(v);
    return scatter_value(stored.bf16, padded, to);
  }
  scatter_value(stored.s8, padded, to);
  std::memcpy(head + kv_scale_offset(head_dim, token, true), &stored.scale, sizeof(float));
}

void make_kv_values_finite(KvFormat format, int64_t head_dim, std::byte* head) noexcept {
  if (format == KvFormat::int8) {
    std::byte* at = head + kv_scale_offset(head_dim, 0, true);
    for (int64_t t = 0; t < kKvBlockTokens; ++t, at += sizeof(float)) {
      float scale;
      std::memcpy(&scale, at, sizeof scale);
      if (!std::isfinite(scale)) std::memset(at, 0, sizeof scale);
    }
    return;
  }
  const int64_t part = kv_part_bytes(format, head_dim);
  for (std::byte* at = head + part; at < head + 2 * part; at += sizeof(uint16_t)) {
    uint16_t value;
    std::memcpy(&value, at, sizeof value);
    value = finite_bf16(value);
    std::memcpy(at, &value, sizeof value);
  }
}

}  // namespace qllm::cpu
