// The ceilings of AVX-512 over memory, and of its FMA. Its int8 one: ceiling_int8_avx512vnni.cpp.
#include <immintrin.h>

#include "kernels/ceiling_impl.h"

namespace qllm::cpu::avx512vnni {
namespace {

struct Tier {
  using V = __m512i;
  using F = __m512;
  static V load(const char* p) { return _mm512_loadu_si512(p); }
  static V add(V a, V b) { return _mm512_add_epi32(a, b); }
  static V zero() { return _mm512_setzero_si512(); }
  static uint32_t total(V v) { return static_cast<uint32_t>(_mm512_reduce_add_epi32(v)); }
  static F load_floats(const float* p) { return _mm512_load_ps(p); }
  static F triad(F b, F c) { return _mm512_fmadd_ps(c, _mm512_set1_ps(3.0F), b); }
  static void store(float* p, F v) { _mm512_store_ps(p, v); }
  static void store_past_caches(float* p, F v) { _mm512_stream_ps(p, v); }
};

constexpr int kSums = 24;  // of 32 registers

}  // namespace

uint32_t read_64(const ReadArgs& args) noexcept { return ReadImpl<Tier>::read(args); }
void copy(const MoveArgs& args) noexcept { MoveImpl<Tier>::copy(args); }
void triad(const MoveArgs& args) noexcept { MoveImpl<Tier>::triad(args); }

uint32_t peak_f32(int64_t rounds) noexcept {
  const __m512 x = _mm512_set1_ps(1.0F);
  __m512 sum[kSums] = {};
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) {
      __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(sum[i]) : "v"(x));
    }
  }
  __m512i total = _mm512_setzero_si512();
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) total = _mm512_add_epi32(total, _mm512_cvtps_epi32(sum[i]));
  return static_cast<uint32_t>(_mm512_reduce_add_epi32(total));
}

}  // namespace qllm::cpu::avx512vnni
