// The float kernels at the base level of the library, x86-64-v2: SSE4.2.
#include <smmintrin.h>

#include "kernels/vec_impl.h"

namespace qllm::cpu::scalar {
namespace {

struct Tier {
  using Arch = xsimd::sse4_2;
  using F = xsimd::batch<float, Arch>;

  static F pow2(F n) {
    return _mm_castsi128_ps(
        _mm_slli_epi32(_mm_add_epi32(_mm_cvtps_epi32(n), _mm_set1_epi32(127)), 23));
  }

  static void store_bf16(F f, uint16_t* p) {
    const __m128 v = f;
    const __m128i bits = _mm_castps_si128(v);
    const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
    const __m128i rounded = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
    const __m128i nan = _mm_castps_si128(_mm_cmpunord_ps(v, v));
    const __m128i kept = _mm_or_si128(bits, _mm_set1_epi32(0x400000));  // quiet
    const __m128i r = _mm_srli_epi32(_mm_blendv_epi8(rounded, kept, nan), 16);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(r, r));
  }

  static void store_u8(F v, uint8_t* p) {
    __m128i i = _mm_cvtps_epi32(v);
    i = _mm_packs_epi32(i, i);
    const int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(i, i));
    __builtin_memcpy(p, &four, sizeof four);
  }

  static void store_s8(F v, int8_t* p) {
    __m128i i = _mm_cvtps_epi32(v);
    i = _mm_packs_epi32(i, i);
    const int32_t four = _mm_cvtsi128_si32(_mm_packs_epi16(i, i));
    __builtin_memcpy(p, &four, sizeof four);
  }

  template <int kStride>
  static F swapped(F v) {
    return _mm_shuffle_ps(v, v, kStride == 1 ? 0xB1 : 0x4E);
  }
};

constexpr VecKernels kTable = VecImpl<Tier>::table(Isa::scalar);

}  // namespace

const VecKernels& vec_kernels() noexcept { return kTable; }

}  // namespace qllm::cpu::scalar
