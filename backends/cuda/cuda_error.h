// What the CUDA runtime returns, as exceptions.
#pragma once

#include <cuda_runtime.h>

namespace qllm::cuda {

/// Throws qllm::Error unless `error` is cudaSuccess: out_of_memory where the device has no room,
/// else internal, with what was tried and what the runtime says of it.
void check(cudaError_t error, const char* what);

}  // namespace qllm::cuda
