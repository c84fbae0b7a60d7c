// Vectors of 512 bits for attend_impl.h, with VNNI; Own, a class of the tier's anonymous namespace,
// keeps what is compiled here the tier's own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/intrin.h"

namespace qllm::cpu {

template <class Own>
struct AttendOps512 {
  using F = __m512;
  using I = __m512i;
  static constexpr int64_t kLanes = 16;
  static constexpr int64_t kSums = 8;
  static constexpr int kRows = 8;

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)));
  }
  /// p 2^n of n in the low bits of x.
  static F times_pow2(F p, F x) {
    const I n = _mm512_slli_epi32(_mm512_castps_si512(x), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_castps_si512(p)));
  }
  static F select(F index, F lo, F hi, F yes, F no) {
    const F from = _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(lo, index, _CMP_LE_OQ), yes);
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(index, hi, _CMP_LT_OQ), from);
  }
  static float max_lanes(F x) {
    float lanes[kLanes];
    store(lanes, x);
    float top = lanes[0];
    for (const float lane : lanes) top = lane > top ? lane : top;
    return top;
  }
  static float sum_lanes(F x) {
    float lanes[kLanes];
    store(lanes, x);
    float sum = 0.0F;
    for (const float lane : lanes) sum += lane;
    return sum;
  }

  static I zero() { return _mm512_setzero_si512(); }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static I load_bytes(const std::byte* p) { return _mm512_loadu_si512(p); }
  static F low(const std::byte* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(load_bytes(p), 16));
  }
  static F high(const std::byte* p) {
    const I mask = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000U));
    return _mm512_castsi512_ps(_mm512_and_si512(load_bytes(p), mask));
  }
  static I even(const std::byte* p) {
    return _mm512_srai_epi16(_mm512_slli_epi16(load_bytes(p), 8), 8);
  }
  static I odd(const std::byte* p) { return _mm512_srai_epi16(load_bytes(p), 8); }
  static F splat(const uint32_t* w) {
    float f;
    __builtin_memcpy(&f, w, sizeof f);
    return _mm512_set1_ps(f);
  }
  static I splat_pairs(const uint32_t* w) { return _mm512_set1_epi32(static_cast<int32_t>(*w)); }
  static I dot(I sum, I pairs, I words) { return _mm512_dpwssd_epi32(sum, pairs, words); }

  static void store_pairs(const F* x, uint32_t* words) {
    float lanes[kLanes];
    store(lanes, *x);
    const __m256i a = _mm256_cvtps_epi32(_mm256_loadu_ps(lanes));
    const __m256i b = _mm256_cvtps_epi32(_mm256_loadu_ps(lanes + 8));
    const __m256i ordered = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    const __m256i pairs = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(ordered, 0xD8), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), pairs);
  }
};

}  // namespace qllm::cpu
