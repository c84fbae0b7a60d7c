// Reads device memory once, for the ceiling.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace qllm::cuda {

/// Reads `bytes`, a multiple of 16, and writes something that depends on all of them to sums
/// [read_memory_blocks(multiprocessors)].
void read_memory(const std::byte* data, int64_t bytes, int multiprocessors, unsigned* sums,
                 cudaStream_t stream);
int read_memory_blocks(int multiprocessors);

}  // namespace qllm::cuda
