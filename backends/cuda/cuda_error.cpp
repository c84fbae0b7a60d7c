#include "cuda_error.h"

#include "core/error.h"

namespace qllm::cuda {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const bool memory = error == cudaErrorMemoryAllocation;
  fail(memory ? ErrorCode::out_of_memory : ErrorCode::internal, "cuda: {}: {}", what,
       cudaGetErrorString(error));
}

}  // namespace qllm::cuda
