// Several emulated devices (Device::count of runtime.h), and what passes between them. The variable
// QLLM_EMULATED_GPU=gpus=N sets their number at the start.
#pragma once

#include <cstdint>

#include "cuda_host/cuda_runtime.h"

namespace qllm::cuda_host {

/// Bytes allocated on one device now.
int64_t allocated_bytes(int device);
/// Kernels and copies enqueued on one device's streams so far.
int64_t enqueued(int device);
/// The device that owns memory; -1: it is the host's.
int owner_of(const void* p);
/// The device whose stream it is. Work that a thread enqueues on a stream of another device than
/// its current one fails, as a launch does.
int device_of(cudaStream_t stream);

/// Whether NCCL is installed; it is.
void install_nccl(bool installed);
/// Its all-gathers so far, each counted once for all its ranks.
int64_t gathers();
/// Those that live.
int64_t communicators();

}  // namespace qllm::cuda_host
