// Weights in groups on AVX2.
//
// 4 bits: a code is 0..15 and x in [-127, 127], so vpmaddubsw(code, x) never saturates: a pair is
// at most 2 * 15 * 127 = 3810, and the eight pairs that a s16 lane meets in 32 inputs 30,480. Then
// one vpmaddwd with ones folds two lanes into s32.
// 8 bits: vpmaddubsw would saturate; codes are parted into u16 pairs {q0, q2} and {q1, q3}, x into
// pairs of s16, for vpmaddwd: exact in s32.
#include "kernels/group_dot_stream.h"

namespace qllm::cpu::avx2 {
namespace {

struct Common {
  using V = __m256i;
  using F = __m256;
  static constexpr int kLanes = 8;

  static V zero() { return _mm256_setzero_si256(); }
  static V load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
  static void store(void* p, V v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }
  static V broadcast(const void* p) {
    int32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
  }
  static V add(V a, V b) { return _mm256_add_epi32(a, b); }
  static V sub(V a, V b) { return _mm256_sub_epi32(a, b); }
  template <int kBy>
  static V shift_left(V v) {
    return _mm256_slli_epi32(v, kBy);
  }
  static F to_float(V v) { return _mm256_cvtepi32_ps(v); }
  static F load_f(const float* p) { return _mm256_load_ps(p); }
  static void store_f(F v, float* p) { _mm256_store_ps(p, v); }
  static F broadcast_f(const float* p) { return _mm256_broadcast_ss(p); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static F load_f16(const void* p) {
    return _mm256_cvtph_ps(_mm_load_si128(static_cast<const __m128i*>(p)));
  }
  static F load_u8(const void* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
  }
  /// Sums in registers: at most ten of 16.
  static constexpr int lines_of(int tokens) { return tokens == 1 ? 8 : tokens == 2 ? 4 : 2; }
};

struct Codes4 : Common {
  static constexpr int kBits = 4;
  static constexpr int kParts = 2;
  static constexpr bool kWideX = false;
  static constexpr bool kFold = true;

  static V split(V codes, int part) {
    return _mm256_and_si256(part == 0 ? codes : _mm256_srli_epi16(codes, 4), _mm256_set1_epi8(15));
  }
  static V dot(V sum, V factor, V x) {
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(factor, x));
    pin(sum);
    return sum;
  }
  static V fold(V sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
};

struct Codes8 : Common {
  static constexpr int kBits = 8;
  static constexpr int kParts = 2;
  static constexpr bool kWideX = true;
  static constexpr bool kFold = false;

  static V split(V codes, int part) {
    return part == 0 ? _mm256_and_si256(codes, _mm256_set1_epi16(255))
                     : _mm256_srli_epi16(codes, 8);
  }
  static V dot(V sum, V factor, V x) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(factor, x));
    pin(sum);
    return sum;
  }
  static V fold(V sum) { return sum; }
};

constexpr int kTokens = 5;  // 5 x 2 sums, 2 factors, a mask, x, a product

}  // namespace

void group_dot_s8_n64_stream(const GroupDotArgs& args) noexcept {
  if (args.format.bits == 4) return GroupDotStream<Codes4, kTokens>::run(args);
  GroupDotStream<Codes8, kTokens>::run(args);
}

}  // namespace qllm::cpu::avx2
