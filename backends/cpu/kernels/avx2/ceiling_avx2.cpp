// The ceilings of AVX2: reads of 32 bytes; vpmaddwd + vpaddd, as exact sums without VNNI need; FMA.
#include <immintrin.h>

#include "kernels/ceiling_impl.h"

namespace qllm::cpu::avx2 {
namespace {

uint32_t total_words(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_srli_si128(s, 8));
  s = _mm_add_epi32(s, _mm_srli_si128(s, 4));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(s));
}

struct Tier {
  using V = __m256i;
  using F = __m256;
  static V load(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static V add(V a, V b) { return _mm256_add_epi32(a, b); }
  static V zero() { return _mm256_setzero_si256(); }
  static uint32_t total(V v) { return total_words(v); }
  static F load_floats(const float* p) { return _mm256_load_ps(p); }
  static F triad(F b, F c) { return _mm256_fmadd_ps(c, _mm256_set1_ps(3.0F), b); }
  static void store(float* p, F v) { _mm256_store_ps(p, v); }
  static void store_past_caches(float* p, F v) { _mm256_stream_ps(p, v); }
};

__m256i repeat_words(int a, int b, int c, int d) {
  const auto word = [](int v) { return static_cast<int64_t>(static_cast<uint16_t>(v)); };
  return _mm256_set1_epi64x(word(a) | word(b) << 16 | word(c) << 32 | word(d) << 48);
}

constexpr int kSums = 12;  // of the FMA, of 16 registers

}  // namespace

uint32_t read_32(const ReadArgs& args) noexcept { return ReadImpl<Tier>::read(args); }
void copy(const MoveArgs& args) noexcept { MoveImpl<Tier>::copy(args); }
void triad(const MoveArgs& args) noexcept { MoveImpl<Tier>::triad(args); }

uint32_t peak_int8(int64_t rounds) noexcept {
  const __m256i x = repeat_words(kPeakX[0], kPeakX[1], kPeakX[2], kPeakX[3]);
  const __m256i w = repeat_words(kPeakW[0], kPeakW[1], kPeakW[2], kPeakW[3]);
  __m256i s0 = _mm256_setzero_si256();
  __m256i s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0;
  __m256i p0, p1, p2, p3, p4, p5;
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      // As written, or equal products are made once. Six multiplies, then six additions, make 80 to
      // 89 GMAC/s on Zen 3, by turns 77 to 83: it depends on which pipes they meet. Multiplies
      // alone make 104.
      __asm__ volatile(
          "vpmaddwd %12, %13, %6\n\tvpmaddwd %12, %13, %7\n\tvpmaddwd %12, %13, %8\n\t"
          "vpmaddwd %12, %13, %9\n\tvpmaddwd %12, %13, %10\n\tvpmaddwd %12, %13, %11\n\t"
          "vpaddd %6, %0, %0\n\tvpaddd %7, %1, %1\n\tvpaddd %8, %2, %2\n\t"
          "vpaddd %9, %3, %3\n\tvpaddd %10, %4, %4\n\tvpaddd %11, %5, %5"
          : "+x"(s0), "+x"(s1), "+x"(s2), "+x"(s3), "+x"(s4), "+x"(s5), "=&x"(p0), "=&x"(p1),
            "=&x"(p2), "=&x"(p3), "=&x"(p4), "=&x"(p5)
          : "x"(x), "x"(w));
    }
  }
  const __m256i half = _mm256_add_epi32(_mm256_add_epi32(s0, s1), s2);
  return total_words(_mm256_add_epi32(half, _mm256_add_epi32(_mm256_add_epi32(s3, s4), s5)));
}

uint32_t peak_f32(int64_t rounds) noexcept {
  const __m256 x = _mm256_set1_ps(1.0F);
  __m256 sum[kSums] = {};
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      __asm__ volatile("vfmadd231ps %1, %1, %0" : "+x"(sum[i]) : "x"(x));
    }
  }
  __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) total = _mm256_add_epi32(total, _mm256_cvtps_epi32(sum[i]));
  return total_words(total);
}

}  // namespace qllm::cpu::avx2
