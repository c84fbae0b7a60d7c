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

  static F load_bf16(const uint16_t* p) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
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

  template <int kStride>
  static F swapped(F v) {
    if constexpr (kStride >= 4) return _mm512_shuffle_f32x4(v, v, kStride == 4 ? 0xB1 : 0x4E);
    return _mm512_permute_ps(v, kStride == 1 ? 0xB1 : 0x4E);
  }

  static void add_run(const char* v, __m512i* sum) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sum[j] = _mm512_add_epi32(sum[j], _mm512_loadu_si512(v + 64 * j));
  }

  /// Four streams by turns, 256 bytes each, as on AVX2, where that was measured.
  static uint32_t sum_words(const void* p, int64_t bytes) {
    const auto* v = static_cast<const char*>(p);
    constexpr int64_t kStreams = 4;
    const int64_t part = bytes / 256 / kStreams * 256;  // bytes of a stream
    __m512i sum[4] = {};
    for (int64_t i = 0; i < part; i += 256) {
      for (int64_t s = 0; s < kStreams; ++s) add_run(v + s * part + i, sum);
    }
    for (int64_t i = kStreams * part; i < bytes; i += 256) add_run(v + i, sum);
    const __m512i s =
        _mm512_add_epi32(_mm512_add_epi32(sum[0], sum[1]), _mm512_add_epi32(sum[2], sum[3]));
    return static_cast<uint32_t>(_mm512_reduce_add_epi32(s));
  }
};

constexpr VecKernels kTable = VecImpl<Tier>::table(Isa::avx512vnni);

}  // namespace

const VecKernels& vec_kernels() noexcept { return kTable; }

}  // namespace qllm::cpu::avx512vnni
