// Vectors of 256 bits for attend_impl.h; Own, a class of the tier's anonymous namespace, adds
// dot(), and keeps what is compiled here the tier's own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/intrin.h"

namespace qllm::cpu {

template <class Own>
struct AttendOps256 {
  using F = __m256;
  using I = __m256i;
  static constexpr int64_t kLanes = 8;
  static constexpr int64_t kSums = 8;
  static constexpr int kRows = 4;  // x 2 vectors a line: 8 sums, 4 of the line, word, product

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
  /// p 2^n of n in the low bits of x.
  static F times_pow2(F p, F x) {
    const I n = _mm256_slli_epi32(_mm256_castps_si256(x), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_castps_si256(p)));
  }
  static F select(F index, F lo, F hi, F yes, F no) {
    const F in =
        _mm256_and_ps(_mm256_cmp_ps(lo, index, _CMP_LE_OQ), _mm256_cmp_ps(index, hi, _CMP_LT_OQ));
    return _mm256_blendv_ps(no, yes, in);
  }
  static float max_lanes(F x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
  }
  static float sum_lanes(F x) {
    __m128 m = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_add_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_add_ss(m, _mm_shuffle_ps(m, m, 1)));
  }

  static I zero() { return _mm256_setzero_si256(); }
  static F to_float(I x) { return _mm256_cvtepi32_ps(x); }
  static I load_bytes(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static F low(const std::byte* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(load_bytes(p), 16));
  }
  static F high(const std::byte* p) {
    const I mask = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000U));
    return _mm256_castsi256_ps(_mm256_and_si256(load_bytes(p), mask));
  }
  static I even(const std::byte* p) {
    return _mm256_srai_epi16(_mm256_slli_epi16(load_bytes(p), 8), 8);
  }
  static I odd(const std::byte* p) { return _mm256_srai_epi16(load_bytes(p), 8); }
  static F splat(const uint32_t* w) {
    return _mm256_broadcast_ss(reinterpret_cast<const float*>(w));
  }
  static I splat_pairs(const uint32_t* w) { return _mm256_set1_epi32(static_cast<int32_t>(*w)); }
  static I dot(I sum, I pairs, I words) { return Own::dot(sum, pairs, words); }

  static void store_pairs(const F* x, uint32_t* words) {
    // Of each half of x[0], of each half of x[1], by turns.
    const I packed = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
    const I ordered = _mm256_permute4x64_epi64(packed, 0xD8);
    const I pairs = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(ordered, 0xD8), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), pairs);
  }
};

}  // namespace qllm::cpu
