// Attention at the base level of the library, x86-64-v2: SSE4.2.
#include "kernels/attend_impl.h"

namespace qllm::cpu::scalar {
namespace {

struct Ops {
  using F = __m128;
  using I = __m128i;
  static constexpr int64_t kLanes = 4;
  static constexpr int64_t kSums = 8;
  static constexpr int kRows = 2;  // x 4 vectors a line

  static F load(const float* p) { return _mm_loadu_ps(p); }
  static void store(float* p, F x) { _mm_storeu_ps(p, x); }
  static F set(float x) { return _mm_set1_ps(x); }
  static F add(F a, F b) { return _mm_add_ps(a, b); }
  static F sub(F a, F b) { return _mm_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm_mul_ps(a, b); }
  static F div(F a, F b) { return _mm_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
  static F min(F a, F b) { return _mm_min_ps(a, b); }
  static F max(F a, F b) { return _mm_max_ps(a, b); }
  static F abs(F a) { return _mm_andnot_ps(_mm_set1_ps(-0.0F), a); }
  /// p 2^n of n in the low bits of x.
  static F times_pow2(F p, F x) {
    const I n = _mm_slli_epi32(_mm_castps_si128(x), 23);
    return _mm_castsi128_ps(_mm_add_epi32(n, _mm_castps_si128(p)));
  }
  static F select(F index, F lo, F hi, F yes, F no) {
    return _mm_blendv_ps(no, yes, _mm_and_ps(_mm_cmple_ps(lo, index), _mm_cmplt_ps(index, hi)));
  }
  static float max_lanes(F x) {
    const __m128 m = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
  }
  static float sum_lanes(F x) {
    const __m128 m = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(m, _mm_shuffle_ps(m, m, 1)));
  }

  static I zero() { return _mm_setzero_si128(); }
  static F to_float(I x) { return _mm_cvtepi32_ps(x); }
  static I load_bytes(const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static F low(const std::byte* p) { return _mm_castsi128_ps(_mm_slli_epi32(load_bytes(p), 16)); }
  static F high(const std::byte* p) {
    const I mask = _mm_set1_epi32(static_cast<int32_t>(0xffff0000U));
    return _mm_castsi128_ps(_mm_and_si128(load_bytes(p), mask));
  }
  static I even(const std::byte* p) { return _mm_srai_epi16(_mm_slli_epi16(load_bytes(p), 8), 8); }
  static I odd(const std::byte* p) { return _mm_srai_epi16(load_bytes(p), 8); }
  static F splat(const uint32_t* w) { return _mm_load1_ps(reinterpret_cast<const float*>(w)); }
  static I splat_pairs(const uint32_t* w) { return _mm_set1_epi32(static_cast<int32_t>(*w)); }
  static I dot(I sum, I pairs, I words) { return _mm_add_epi32(sum, _mm_madd_epi16(pairs, words)); }

  static void store_pairs(const F* x, uint32_t* words) {
    for (int i = 0; i < 4; i += 2) {
      const I packed = _mm_packs_epi32(_mm_cvtps_epi32(x[i]), _mm_cvtps_epi32(x[i + 1]));
      const I pairs = _mm_shufflehi_epi16(_mm_shufflelo_epi16(packed, 0xD8), 0xD8);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(words + 2 * i), pairs);
    }
  }
};

constexpr AttendTable kTable = {AttendImpl<Ops, AttendBf16>::table(),
                                AttendImpl<Ops, AttendInt8>::table()};

}  // namespace

const AttendTable& attend_table() noexcept { return kTable; }

}  // namespace qllm::cpu::scalar
