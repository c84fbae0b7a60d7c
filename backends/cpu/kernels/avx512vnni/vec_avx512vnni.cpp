// The float kernels on AVX-512 (F, BW, VL, DQ).
#include <immintrin.h>

#include "kernels/vec_impl.h"

namespace qllm::cpu::avx512vnni {
namespace {

struct Tier {
  using Arch = xsimd::avx512bw;
  using F = xsimd::batch<float, Arch>;

  static F pow2(F n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
  }

  static void store_bf16(F f, uint16_t* p) {
    const __m512 v = f;
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i r =
        _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));  // quiet
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
  }

  static void store_u8(F v, uint8_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }

  static void store_s8(F v, int8_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }

  template <int kStride>
  static F swapped(F v) {
    if constexpr (kStride >= 4) return _mm512_shuffle_f32x4(v, v, kStride == 4 ? 0xB1 : 0x4E);
    return _mm512_permute_ps(v, kStride == 1 ? 0xB1 : 0x4E);
  }
};

constexpr VecKernels kTable = VecImpl<Tier>::table(Isa::avx512vnni);

}  // namespace

const VecKernels& vec_kernels() noexcept { return kTable; }

}  // namespace qllm::cpu::avx512vnni
