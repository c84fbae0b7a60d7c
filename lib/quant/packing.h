// The packed weight layout as index equations.
//
//   offset(n, k) = ((n/64) * (K/64) + k/64) * 4096 + (k%64)/4 * 256 + (n%64)*4 + k%4
//
// for int8 weights W[N, K] of y[M, N] = x[M, K] W^T, N and K padded to multiples of 64 with zeros.
// A 64-byte line holds 16 outputs x 4 inputs: the operand of vpdpbusd; it is oneDNN's BA16a64b4a.
#pragma once

#include <cstdint>

#include "core/math.h"

namespace qllm {

inline constexpr int64_t kBlockN = 64;                     // outputs in a block
inline constexpr int64_t kBlockK = 64;                     // inputs in a block
inline constexpr int64_t kBlockBytes = kBlockN * kBlockK;  // int8 weights of a block
inline constexpr int32_t kActivationZero = 128;            // u8 = q + 128, q in [-127, 127]

/// Byte offset of weight (n, k); `k_padded` is K rounded up to kBlockK.
constexpr int64_t packed_offset(int64_t n, int64_t k, int64_t k_padded) {
  return ((n / kBlockN) * (k_padded / kBlockK) + k / kBlockK) * kBlockBytes +
         (k % kBlockK) / 4 * 256 + (n % kBlockN) * 4 + k % 4;
}

/// Bytes of a packed [n, k] matrix with its padding.
constexpr int64_t packed_bytes(int64_t n, int64_t k) {
  return round_up(n, kBlockN) * round_up(k, kBlockK);
}

}  // namespace qllm
