// One linear of a step: its kernels by the number of tokens.
#pragma once

#include "cuda_device.h"
#include "cuda_weights.h"
#include "kernels/linear.h"
#include "lt_gemm.h"

namespace qllm::cuda {

/// What all linears of a plan share.
struct LinearContext {
  int multiprocessors = 1;
  LtGemm* gemm = nullptr;   // null: tiles take all token counts
  int32_t* sums = nullptr;  // of the gemm: [most tokens, most outputs]
};

/// y = x w^T + bias + residual for m tokens.
void run_linear(const DeviceLinear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                const LinearContext& context, const Stream& stream);

/// Whether the sums of m tokens may be left as cuBLASLt makes them, for swiglu_sums: one run, no
/// second terms.
bool leaves_sums(const DeviceLinear& w, int64_t m, const LinearContext& context);
/// Makes them, [m, w.n rounded up to 64].
void run_sums(const DeviceLinear& w, const QuantRows& x, int64_t m, const LinearContext& context,
              const Stream& stream);

/// Sums that a gemm of this linear makes for m tokens, in values; 0: it takes none.
int64_t gemm_sums(const DeviceLinear& w, int64_t m);

}  // namespace qllm::cuda
