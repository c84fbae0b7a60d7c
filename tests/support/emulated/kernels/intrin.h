// Stands before backends/cpu/kernels/intrin.h when the tests compile a kernel for emulation: the
// same source, its intrinsics by SIMDe, its tier's namespace renamed so that both forms link
// together.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512/add.h>
#include <simde/x86/avx512/and.h>
#include <simde/x86/avx512/cast.h>
#include <simde/x86/avx512/cmp.h>
#include <simde/x86/avx512/cvt.h>
#include <simde/x86/avx512/div.h>
#include <simde/x86/avx512/dpbusd.h>
#include <simde/x86/avx512/dpwssd.h>
#include <simde/x86/avx512/fmadd.h>
#include <simde/x86/avx512/fnmadd.h>
#include <simde/x86/avx512/loadu.h>
#include <simde/x86/avx512/max.h>
#include <simde/x86/avx512/min.h>
#include <simde/x86/avx512/mov.h>
#include <simde/x86/avx512/mul.h>
#include <simde/x86/avx512/permutex2var.h>
#include <simde/x86/avx512/set.h>
#include <simde/x86/avx512/set1.h>
#include <simde/x86/avx512/set4.h>
#include <simde/x86/avx512/setzero.h>
#include <simde/x86/avx512/shuffle.h>
#include <simde/x86/avx512/slli.h>
#include <simde/x86/avx512/srai.h>
#include <simde/x86/avx512/srli.h>
#include <simde/x86/avx512/storeu.h>
#include <simde/x86/avx512/sub.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

namespace qllm::cpu {
namespace {
template <typename Vector>
inline void pin(Vector& /*sum*/) {}
inline void stay() {}
}  // namespace
}  // namespace qllm::cpu

// SIMDe has AVX-512's form of these instructions; AVX-VNNI's compute the same.
#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32(src, a, b) simde_mm256_dpbusd_epi32(src, a, b)

#undef _mm256_dpwssd_avx_epi32
#define _mm256_dpwssd_avx_epi32(src, a, b) simde_mm256_dpwssd_epi32(src, a, b)

// Not in every SIMDe.
inline simde__m512 qllm_emulated_cvtepi32_ps(simde__m512i v) {
  int32_t in[16];
  float out[16];
  simde_mm512_storeu_si512(in, v);
  for (int i = 0; i < 16; ++i) out[i] = static_cast<float>(in[i]);
  return simde_mm512_loadu_ps(out);
}
inline simde__m512 qllm_emulated_cvtph_ps(simde__m256i v) {
  simde__m256 halves[2] = {simde_mm256_cvtph_ps(simde_mm256_extracti128_si256(v, 0)),
                           simde_mm256_cvtph_ps(simde_mm256_extracti128_si256(v, 1))};
  return simde_mm512_loadu_ps(halves);
}
inline simde__m512i qllm_emulated_cvtepu8_epi32(simde__m128i v) {
  uint8_t in[16];
  int32_t out[16];
  simde_mm_storeu_si128(reinterpret_cast<simde__m128i*>(in), v);
  for (int i = 0; i < 16; ++i) out[i] = in[i];
  return simde_mm512_loadu_si512(out);
}
inline simde__m256i qllm_emulated_cvtepi32_epi16(simde__m512i v) {
  int32_t in[16];
  int16_t out[16];
  simde_mm512_storeu_si512(in, v);
  for (int i = 0; i < 16; ++i) out[i] = static_cast<int16_t>(in[i]);
  return simde_mm256_loadu_si256(reinterpret_cast<const simde__m256i*>(out));
}
#undef _mm512_cvtepi32_epi16
#define _mm512_cvtepi32_epi16(v) qllm_emulated_cvtepi32_epi16(v)
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(v) qllm_emulated_cvtph_ps(v)
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32(v) qllm_emulated_cvtepu8_epi32(v)
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(v) qllm_emulated_cvtepi32_ps(v)

#define avx2 avx2_emulated
#define avxvnni avxvnni_emulated
#define avx512vnni avx512vnni_emulated
#define amx amx_emulated
