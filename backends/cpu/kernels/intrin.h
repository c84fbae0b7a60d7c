// The intrinsics of the dot kernels. The tests put another header of this name before this one,
// which emulates the tiers that a machine lacks (tests/support/emulated).
#pragma once

#include <immintrin.h>

namespace qllm::cpu {
namespace {

/// Ends a statement such as `sum = _mm256_add_epi32(sum, product)` for the compiler: the sum is in
/// a register here. Integer sums may be regrouped, and gcc 12 does: it adds the products of an
/// unrolled step first, runs out of registers and keeps every sum in memory (measured on AVX2: 63
/// instead of 80 GMAC/s).
template <typename Vector>
__attribute__((always_inline)) inline void pin(Vector& sum) {
  __asm__("" : "+x"(sum));
}

/// No load or store crosses it, in the compiler.
__attribute__((always_inline)) inline void stay() { __asm__ volatile("" ::: "memory"); }

}  // namespace
}  // namespace qllm::cpu
