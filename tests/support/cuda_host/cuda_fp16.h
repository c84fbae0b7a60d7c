// Stands for the toolkit's header; see cuda_runtime.h here.
#pragma once

#include <bit>
#include <cstdint>

struct __half {
  uint16_t bits = 0;
};
inline float __half2float(__half h) { return static_cast<float>(std::bit_cast<_Float16>(h.bits)); }
inline __half __float2half_rn(float x) {
  return {std::bit_cast<uint16_t>(static_cast<_Float16>(x))};
}
inline __half __ushort_as_half(unsigned short x) { return {x}; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
