#include "quant/int8.h"

#include <algorithm>
#include <cmath>

#include "quant/packing.h"

namespace qllm {
namespace {

float row_amax(const float* x, int64_t n) {
  float amax = 0.0F;
  for (int64_t i = 0; i < n; ++i) {
    const float a = std::fabs(x[i]);
    if (a > amax && std::isfinite(a)) amax = a;
  }
  return amax;
}

int quantize_value(float x, float inv) {
  const float r = std::nearbyintf(x * inv);
  if (!(r > -127.0F)) return std::isnan(r) ? 0 : -127;
  return r < 127.0F ? static_cast<int>(r) : 127;
}

}  // namespace

float quantize_row_s8(const float* x, int64_t n, int8_t* q) {
  const float amax = row_amax(x, n);
  const float inv = amax > 0.0F ? 127.0F / amax : 0.0F;
  for (int64_t i = 0; i < n; ++i) q[i] = static_cast<int8_t>(quantize_value(x[i], inv));
  return amax > 0.0F ? amax / 127.0F : 1.0F;
}

float quantize_row_u8(const float* x, int64_t n, int64_t n_padded, uint8_t* q) {
  const float amax = row_amax(x, n);
  const float inv = amax > 0.0F ? 127.0F / amax : 0.0F;
  for (int64_t i = 0; i < n; ++i) {
    q[i] = static_cast<uint8_t>(quantize_value(x[i], inv) + kActivationZero);
  }
  std::fill(q + n, q + n_padded, static_cast<uint8_t>(kActivationZero));
  return amax > 0.0F ? amax / 127.0F : 1.0F;
}

int32_t pack_row_s8(const int8_t* q, int64_t k, int64_t row, int64_t k_padded, int8_t* packed) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) {
    packed[packed_offset(row, i, k_padded)] = q[i];
    sum += q[i];
  }
  return sum;
}

}  // namespace qllm
