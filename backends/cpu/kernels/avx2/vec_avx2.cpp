// The float kernels on AVX2 with FMA.
#include <immintrin.h>

#include "kernels/vec_impl.h"

namespace qllm::cpu::avx2 {
namespace {

struct Tier {
  using Arch = xsimd::fma3<xsimd::avx2>;
  using F = xsimd::batch<float, Arch>;

  static F pow2(F n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
  }

  static void store_bf16(F f, uint16_t* p) {
    const __m256 v = f;
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i kept = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));  // quiet
    const __m256i r = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, kept, nan), 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)));
  }

  static void store_u8(F v, uint8_t* p) {
    const __m256i i = _mm256_cvtps_epi32(v);
    const __m128i s = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(s, s));
  }

  static void store_s8(F v, int8_t* p) {
    const __m256i i = _mm256_cvtps_epi32(v);
    const __m128i s = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(s, s));
  }

  template <int kStride>
  static F swapped(F v) {
    if constexpr (kStride == 4) return _mm256_permute2f128_ps(v, v, 1);
    return _mm256_permute_ps(v, kStride == 1 ? 0xB1 : 0x4E);
  }
};

constexpr VecKernels kTable = VecImpl<Tier>::table(Isa::avx2);

}  // namespace

const VecKernels& vec_kernels() noexcept { return kTable; }

}  // namespace qllm::cpu::avx2
