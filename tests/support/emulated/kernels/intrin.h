// Stands before backends/cpu/kernels/intrin.h when the tests compile a kernel for emulation: the
// same source, its intrinsics by SIMDe, its tier's namespace renamed so that both forms link
// together.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512/add.h>
#include <simde/x86/avx512/dpbusd.h>
#include <simde/x86/avx512/loadu.h>
#include <simde/x86/avx512/set1.h>
#include <simde/x86/avx512/setzero.h>
#include <simde/x86/avx512/storeu.h>

namespace qllm::cpu {
namespace {
template <typename Vector>
inline void pin(Vector& /*sum*/) {}
}  // namespace
}  // namespace qllm::cpu

// SIMDe has AVX-512's form of the instruction; AVX-VNNI's computes the same.
#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32(src, a, b) simde_mm256_dpbusd_epi32(src, a, b)

#define avx2 avx2_emulated
#define avxvnni avxvnni_emulated
#define avx512vnni avx512vnni_emulated
#define amx amx_emulated
