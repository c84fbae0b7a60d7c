// The ceiling of a linear where memory does not bind: what the kernels that compute it make of
// weights that stay in a core's cache. Below the peak of peak.h by what a tier does besides
// multiplying and adding: on AVX2 without VNNI each weight is widened, which costs as much as one
// or two tokens' products, so the ceiling depends on how many tokens share it.
#pragma once

#include <cstdint>

#include "kernels/dot.h"
#include "quant/scheme.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// The kernel that a linear of `tokens` tokens takes on this tier (`onednn`: where it is used), by
/// all workers at once on 256 outputs x 1024 inputs each, for about 20 ms; in 1e12 operations a
/// second, a multiply-add is two. 0 where the weights are f32, where there are no tokens or more
/// than 4096, and where oneDNN computes. Throws out_of_memory.
double measure_kernel_tops(WorkerPool& pool, Isa isa, bool onednn, const WeightFormat& format,
                           int64_t tokens);

}  // namespace qllm::cpu
