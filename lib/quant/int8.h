// Symmetric int8 quantization: the float reference that every kernel is held to.
//
//   scale = max|x| / 127 (1 where max|x| is 0), inv = 127 / max|x| (0 where it is 0)
//   q     = clamp(round_half_even(x * inv), -127, 127)
//
// Weights per output channel (row of W[N, K]), activations per token (row of x[M, K]); activations
// are stored as u8 = q + 128, padding included (q = 0 -> 128).
#pragma once

#include <cstdint>

namespace qllm {

/// Quantizes one row of `n` floats to int8 in [-127, 127]; returns its scale. NaN becomes 0,
/// infinities saturate the scale to the largest finite value of the row.
float quantize_row_s8(const float* x, int64_t n, int8_t* q);

/// The same with storage u8 = q + 128; writes `n_padded` bytes, those past n are 128.
float quantize_row_u8(const float* x, int64_t n, int64_t n_padded, uint8_t* q);

/// x[i] -= scale * (q[i] - zero): what codes leave of a row, for a second term. `zero` is 0 for s8
/// and 128 for u8 = q + 128.
template <class Code>
void subtract_codes(const Code* q, int zero, float scale, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) x[i] -= scale * static_cast<float>(q[i] - zero);
}

/// Packs row `row` (k values) of a shard into the layout of packing.h; returns sum_k q[k].
int32_t pack_row_s8(const int8_t* q, int64_t k, int64_t row, int64_t k_padded, int8_t* packed);

}  // namespace qllm
