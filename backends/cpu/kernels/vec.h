// Element-wise float kernels of a tier: one table of functions per ISA, written once over xsimd
// batches and compiled with each tier's flags.
#pragma once

#include <cstdint>

#include "kernels/dot.h"

namespace qllm::cpu {

/// y[m, n] = (acc[m, n] - 128 * w_sum[n]) * x_scale[m] * w_scale[n] (+ bias[n]) (+ residual[m, n])
struct EpilogueArgs {
  const int32_t* acc = nullptr;     // [m, ldacc]
  const int32_t* w_sum = nullptr;   // [n]
  const float* w_scale = nullptr;   // [n]
  const float* x_scale = nullptr;   // [m]
  const float* bias = nullptr;      // [n] or null
  const float* residual = nullptr;  // [m, ldres] or null; may be y itself
  float* y = nullptr;               // [m, ldy]
  int64_t m = 0, n = 0;
  int64_t ldacc = 0, ldres = 0, ldy = 0;
};

/// y[m, n] = acc[m, n] (+ bias[n]) (+ residual[m, n])
struct AddArgs {
  const float* acc = nullptr;       // [m, ldacc]
  const float* bias = nullptr;      // [n] or null
  const float* residual = nullptr;  // [m, ldres] or null; may be y itself
  float* y = nullptr;               // [m, ldy]
  int64_t m = 0, n = 0;
  int64_t ldacc = 0, ldres = 0, ldy = 0;
};

struct VecKernels {
  Isa isa;
  void (*epilogue)(const EpilogueArgs& args) noexcept;
  void (*add)(const AddArgs& args) noexcept;
  /// y[i] = x[i] * gain[i] / sqrt(mean(x^2) + eps); gain may be null: all ones.
  void (*rms_norm)(const float* x, const float* gain, float eps, int64_t n, float* y) noexcept;
  /// quant/int8.h quantize_row_u8, bit for bit. Returns the scale.
  float (*quantize_u8)(const float* x, int64_t n, int64_t n_padded, uint8_t* q) noexcept;
  /// quant/group_quant.h quantize_groups_s8, bit for bit. `group` is a multiple of 32 that divides
  /// n_padded.
  void (*quantize_s8_groups)(const float* x, int64_t n, int64_t n_padded, int64_t group, int8_t* q,
                             float* scale, int32_t* sum) noexcept;
  /// y[i] = silu(g_i) * u_i over interleaved blocks of 64 (graph.h SwiGluOp), n = d_ff outputs.
  /// Relative error of the exponential at most 2^-20.
  void (*swiglu)(const float* gate_up, int64_t n, float* y) noexcept;
  /// Each block of 64 in place by the normalised Hadamard matrix, H[i, j] = (-1)^popcount(i & j)
  /// / 8. n is a multiple of 64. Bit for bit on every tier: for s = 1, 2, 4, 8, 16, 32 in this
  /// order each pair (a, b) that lies s apart becomes (a + b, a - b); then all are divided by 8.
  void (*hadamard64)(float* x, int64_t n) noexcept;
  /// Round to nearest even, NaN kept.
  void (*to_bf16)(const float* x, int64_t n, uint16_t* y) noexcept;
};

/// The table of a tier. Precondition: isa_available(isa). avxvnni shares avx2's.
const VecKernels& vec_kernels(Isa isa);

}  // namespace qllm::cpu
