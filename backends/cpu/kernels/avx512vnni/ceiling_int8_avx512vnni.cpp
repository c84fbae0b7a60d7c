// The int8 ceiling of AVX-512 VNNI.
#include "kernels/ceiling.h"
#include "kernels/intrin.h"

namespace qllm::cpu::avx512vnni {
namespace {

constexpr int kSums = 24;  // of 32 registers; two a cycle at a latency of 5 want 10

}  // namespace

uint32_t peak_int8(int64_t rounds) noexcept {
  alignas(64) uint8_t x_bytes[64];
  alignas(64) int8_t w_bytes[64];
  for (int i = 0; i < 64; ++i) {
    x_bytes[i] = kPeakX[i % 4];
    w_bytes[i] = kPeakW[i % 4];
  }
  const __m512i x = _mm512_loadu_si512(x_bytes);
  const __m512i w = _mm512_loadu_si512(w_bytes);
  // Zeros that the compiler cannot see: knowing the sums alike, it would make one of them.
  uint8_t zeros[kSums * 64] = {};
  const uint8_t* start = zeros;
  __asm__ volatile("" : "+r"(start) : : "memory");
  __m512i sum[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sum[i] = _mm512_loadu_si512(start + 64 * i);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], x, w);
  }
  uint32_t total = 0;
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) {
    uint32_t words[16];
    _mm512_storeu_si512(words, sum[i]);
    for (const uint32_t word : words) total += word;
  }
  return total;
}

}  // namespace qllm::cpu::avx512vnni
