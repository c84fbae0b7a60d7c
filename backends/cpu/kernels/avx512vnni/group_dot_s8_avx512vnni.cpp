// Weights in groups on AVX-512 VNNI: vpdpbusd on whole lines, u8 codes and s8 x, exact in s32.
#include "kernels/group_dot_panel.h"
#include "kernels/group_dot_stream.h"

namespace qllm::cpu::avx512vnni {
namespace {

struct Common {
  using V = __m512i;
  using F = __m512;
  static constexpr int kLanes = 16;
  static constexpr bool kWideX = false;
  static constexpr bool kFold = false;

  static V zero() { return _mm512_setzero_si512(); }
  static V load(const void* p) { return _mm512_loadu_si512(p); }
  static void store(void* p, V v) { _mm512_storeu_si512(p, v); }
  static V broadcast(const void* p) {
    int32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
  }
  static V add(V a, V b) { return _mm512_add_epi32(a, b); }
  static V sub(V a, V b) { return _mm512_sub_epi32(a, b); }
  template <int kBy>
  static V shift_left(V v) {
    return _mm512_slli_epi32(v, kBy);
  }
  static F to_float(V v) { return _mm512_cvtepi32_ps(v); }
  static F load_f(const float* p) { return _mm512_loadu_ps(p); }
  static void store_f(F v, float* p) { _mm512_storeu_ps(p, v); }
  static F broadcast_f(const float* p) { return _mm512_set1_ps(*p); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  static F load_f16(const void* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(static_cast<const __m256i*>(p)));
  }
  static F load_u8(const void* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(static_cast<const __m128i*>(p))));
  }

  static V dot(V sum, V factor, V x) { return _mm512_dpbusd_epi32(sum, factor, x); }
  static V fold(V sum) { return sum; }
  /// Sums in registers: at most 24 of 32.
  static constexpr int lines_of(int) { return 4; }
};

struct Codes4 : Common {
  static constexpr int kBits = 4;
  static constexpr int kParts = 2;
  static V split(V codes, int part) {
    return _mm512_and_si512(part == 0 ? codes : _mm512_srli_epi32(codes, 4),
                            _mm512_set1_epi32(0x0f0f0f0f));
  }
};

struct Codes8 : Common {
  static constexpr int kBits = 8;
  static constexpr int kParts = 1;
  static V split(V codes, int) { return codes; }
};

constexpr int kTokens = 6;  // 6 x 4 sums, 4 factors, x

}  // namespace

void group_dot_s8_n64_stream(const GroupDotArgs& args) noexcept {
  if (args.format.bits == 4) return GroupDotStream<Codes4, kTokens>::run(args);
  GroupDotStream<Codes8, kTokens>::run(args);
}

void group_dot_s8_n64_panel(const GroupDotArgs& args) noexcept {
  if (args.format.bits == 4) return GroupDotPanel<Codes4, kTokens, 4>::run(args);
  GroupDotPanel<Codes8, kTokens, 4>::run(args);
}

}  // namespace qllm::cpu::avx512vnni
