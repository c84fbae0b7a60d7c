// Columns of a result dealt out to ranks: pure arithmetic of the host and of kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace qllm::cuda {

/// `units` pieces of `unit` columns each, dealt out to ranks in order; the first ranks get one more
/// where they do not go evenly.
struct Deal {
  int64_t unit = 0;  // 0: nothing is dealt
  int64_t units = 0;
  int64_t ranks = 1;

  __host__ __device__ constexpr int64_t begin(int64_t rank) const {
    const int64_t more = units % ranks;
    return unit * (units / ranks * rank + (rank < more ? rank : more));
  }
  __host__ __device__ constexpr int64_t end(int64_t rank) const { return begin(rank + 1); }
  /// Columns of the largest share, the first.
  __host__ __device__ constexpr int64_t most() const { return end(0); }
  constexpr bool even() const { return units % ranks == 0; }
};

}  // namespace qllm::cuda
