// The int8 ceiling of AVX-VNNI. Its reads and floats are those of AVX2.
#include "kernels/ceiling.h"
#include "kernels/intrin.h"

namespace qllm::cpu::avxvnni {
namespace {

constexpr int kSums = 12;  // of 16 registers; two a cycle at a latency of 5 want 10

}  // namespace

uint32_t peak_int8(int64_t rounds) noexcept {
  uint8_t x_bytes[32];
  int8_t w_bytes[32];
  for (int i = 0; i < 32; ++i) {
    x_bytes[i] = kPeakX[i % 4];
    w_bytes[i] = kPeakW[i % 4];
  }
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x_bytes));
  const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w_bytes));
  // Zeros that the compiler cannot see: knowing the sums alike, it would make one of them.
  uint8_t zeros[kSums * 32] = {};
  const uint8_t* start = zeros;
  __asm__ volatile("" : "+r"(start) : : "memory");
  __m256i sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) {
    sum[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + 32 * i));
  }
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = _mm256_dpbusd_avx_epi32(sum[i], x, w);
  }
  uint32_t total = 0;
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) {
    uint32_t words[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), sum[i]);
    for (const uint32_t word : words) total += word;
  }
  return total;
}

}  // namespace qllm::cpu::avxvnni
