// The ceiling of prefill: how many multiply-adds all workers together make, on registers alone.
#pragma once

#include "kernels/ceiling.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// The fastest int8 loop of a tier and of those below it; of what this machine runs, if
/// `any_tier`. Never null.
const PeakKernel& int8_peak_kernel(Isa isa, bool any_tier);
/// The same for float32, of a tier and of those below it.
const PeakKernel& f32_peak_kernel(Isa isa);

/// The best of five runs of 2 ms of all workers, in 1e12 operations a second; a multiply-add is
/// two. Precondition: isa_available(kernel.isa).
double measure_peak_tops(WorkerPool& pool, const PeakKernel& kernel);

}  // namespace qllm::cpu
