// The ceilings at the base level of the library: reads of 8 and 16 bytes, SSE arithmetic.
#include <smmintrin.h>

#include "kernels/ceiling_impl.h"

namespace qllm::cpu::scalar {
namespace {

struct Word {
  using V = uint64_t;
  // volatile: or the compiler makes vectors of it.
  static V load(const char* p) { return *reinterpret_cast<const volatile uint64_t*>(p); }
  static V add(V a, V b) { return a + b; }
  static V zero() { return 0; }
  static uint32_t total(V v) { return static_cast<uint32_t>(v) + static_cast<uint32_t>(v >> 32); }
};

uint32_t total_words(__m128i v) {
  v = _mm_add_epi32(v, _mm_srli_si128(v, 8));
  v = _mm_add_epi32(v, _mm_srli_si128(v, 4));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(v));
}

struct Sse {
  using V = __m128i;
  using F = __m128;
  static V load(const char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static V add(V a, V b) { return _mm_add_epi32(a, b); }
  static V zero() { return _mm_setzero_si128(); }
  static uint32_t total(V v) { return total_words(v); }
  static F load_floats(const float* p) { return _mm_load_ps(p); }
  static F triad(F b, F c) { return _mm_add_ps(b, _mm_mul_ps(c, _mm_set1_ps(3.0F))); }
  static void store(float* p, F v) { _mm_store_ps(p, v); }
  static void store_past_caches(float* p, F v) { _mm_stream_ps(p, v); }
};

constexpr int kSums = 10;  // of 16 registers; both instructions' latencies are covered

}  // namespace

uint32_t read_8(const ReadArgs& args) noexcept { return ReadImpl<Word>::read(args); }
uint32_t read_16(const ReadArgs& args) noexcept { return ReadImpl<Sse>::read(args); }
void copy(const MoveArgs& args) noexcept { MoveImpl<Sse>::copy(args); }
void triad(const MoveArgs& args) noexcept { MoveImpl<Sse>::triad(args); }

uint32_t peak_int8(int64_t rounds) noexcept {
  const __m128i x = _mm_setr_epi16(kPeakX[0], kPeakX[1], kPeakX[2], kPeakX[3], kPeakX[0], kPeakX[1],
                                   kPeakX[2], kPeakX[3]);
  const __m128i w = _mm_setr_epi16(kPeakW[0], kPeakW[1], kPeakW[2], kPeakW[3], kPeakW[0], kPeakW[1],
                                   kPeakW[2], kPeakW[3]);
  __m128i sum[kSums] = {};
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 10
    for (int i = 0; i < kSums; ++i) {
      // As written, or the product is made once for all rounds.
      __m128i product = x;
      __asm__ volatile("pmaddwd %2, %1\n\tpaddd %1, %0" : "+x"(sum[i]), "+x"(product) : "x"(w));
    }
  }
#pragma GCC unroll 10
  for (int i = 1; i < kSums; ++i) sum[0] = _mm_add_epi32(sum[0], sum[i]);
  return total_words(sum[0]);
}

uint32_t peak_f32(int64_t rounds) noexcept {
  const __m128 x = _mm_set1_ps(1.0F);
  __m128 sum[kSums] = {};
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 10
    for (int i = 0; i < kSums; ++i) {
      __m128 product = x;
      __asm__ volatile("mulps %2, %1\n\taddps %1, %0" : "+x"(sum[i]), "+x"(product) : "x"(x));
    }
  }
  __m128i total = _mm_setzero_si128();
#pragma GCC unroll 10
  for (int i = 0; i < kSums; ++i) total = _mm_add_epi32(total, _mm_cvtps_epi32(sum[i]));
  return total_words(total);
}

}  // namespace qllm::cpu::scalar
