// Kernels that go over activations row by row: norms, SwiGLU and quantization, fused as they follow
// each other in the graph.
#pragma once

#include <cuda_runtime.h>

#include "step_tables.h"

namespace qllm::cuda {

/// What becomes of rows that a kernel has made; either may be missing (data or q null), not both.
struct RowOutputs {
  FloatRows floats;
  QuantRows quantized;
  float* scratch = nullptr;  // [rows, ld of `floats` or more] where floats is missing
  int64_t scratch_ld = 0;
};

/// y[r, i] = x[r, i] * gain[i] / sqrt(mean_i(x[r, i]^2) + eps); gain null: all ones.
void rms_norm_rows(const FloatRows& in, const float* gain, float eps, int64_t rows,
                   const RowOutputs& out, cudaStream_t stream);

/// y[r, i] = silu(g) * u as SwiGluOp says (graph.h), with its Hadamard of 64 or without. `width` is
/// d_ff.
void swiglu_rows(const FloatRows& gate_up, int64_t width, bool hadamard, int64_t rows,
                 const RowOutputs& out, cudaStream_t stream);

/// The outputs of an int8 linear as cuBLASLt leaves them: value (r, n) is sums[r * ld + n] *
/// x_scale[r] * w_scale[n].
struct SumRows {
  const int32_t* sums = nullptr;
  int64_t ld = 0;
  const float* x_scale = nullptr;
  const float* w_scale = nullptr;
};

/// The same of gate and up that were not scaled yet: they are never written as floats.
void swiglu_sums(const SumRows& gate_up, int64_t width, bool hadamard, int64_t rows,
                 const RowOutputs& out, cudaStream_t stream);

/// Quantizes rows as they are (quant/int8.h).
void quantize_rows(const FloatRows& in, int64_t rows, const QuantRows& out, cudaStream_t stream);

/// out[r, :] = in[output_row[r], :].
void select_rows(const FloatRows& in, const int32_t* output_rows, int64_t rows,
                 const FloatRows& out, cudaStream_t stream);

/// Threads of a block that makes a row: a warp for 128 values, 2 to 16 of them.
int row_threads(int64_t width);

}  // namespace qllm::cuda
