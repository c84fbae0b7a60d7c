// The end of every product: bias and residual.
#pragma once

#include "kernels/device.h"
#include "kernels/linear.h"

namespace qllm::cuda {

/// y[m, n] = value + bias + residual, where n is an output.
__device__ inline void store_output(const LinearTarget& y, int64_t m, int64_t n, float value) {
  if (n >= y.floats.width) return;
  if (y.bias != nullptr) value += y.bias[n];
  if (y.residual != nullptr) value += y.residual[m * y.floats.ld + n];
  y.floats.data[m * y.floats.ld + n] = value;
}

__device__ inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace qllm::cuda
