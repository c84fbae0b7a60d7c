// Half-precision floats as bits. Not for kernels/<tier>: their inline copies may be shared by the
// linker.
#pragma once

#include <bit>
#include <cstdint>

namespace qllm {

/// IEEE 754 binary16 to float32, exact; NaN payloads are kept.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t shifted = static_cast<uint32_t>(half & 0x7FFFU) << 13;
  constexpr uint32_t kRebias = (127U - 15U) << 23;
  // Subnormal: 2^-14 (1 + f) - 2^-14 is exact and, unlike a shift alone, has no subnormal operand,
  // so it holds where the host program flushes those to zero.
  constexpr uint32_t kLeastNormal = 113U << 23;
  const float subnormal =
      std::bit_cast<float>(kLeastNormal + shifted) - std::bit_cast<float>(kLeastNormal);
  uint32_t bits = shifted + kRebias;
  if (shifted < (1U << 23)) bits = std::bit_cast<uint32_t>(subnormal);
  if (shifted >= (31U << 23)) bits += kRebias;  // infinity and NaN
  return std::bit_cast<float>(sign | bits);
}

/// bfloat16 to float32, exact.
inline float bfloat_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// float32 to binary16, round to nearest even; overflow becomes infinity, NaN stays NaN.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return static_cast<uint16_t>(sign | 0x7E00U);
  if (magnitude >= 0x477FF000U) return static_cast<uint16_t>(sign | 0x7C00U);  // >= 65520
  if (magnitude < 0x38800000U) {  // below 2^-14: a multiple of 2^-24, rounded by the float adder
    const float sum = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3F000000U));
  }
  const uint32_t rounded = magnitude + 0xFFFU + ((magnitude >> 13) & 1U);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

/// float32 to bfloat16, round to nearest even; NaN stays NaN.
inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace qllm
