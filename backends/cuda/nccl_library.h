// NVIDIA's NCCL, found at run time: only machines with several GPUs need it. What is declared here
// is what the NCCL User Guide says of its C API (version 2).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace qllm::cuda {

struct NcclRank;  // NCCL's own, never looked into
using NcclCommunicator = NcclRank*;
using NcclResult = int;
inline constexpr NcclResult kNcclSuccess = 0;
inline constexpr int kNcclFloat32 = 7;  // ncclDataType_t

struct NcclLibrary {
  NcclResult (*init_all)(NcclCommunicator* communicators, int count, const int* devices) = nullptr;
  NcclResult (*destroy)(NcclCommunicator communicator) = nullptr;
  NcclResult (*all_gather)(const void* send, void* receive, size_t count, int type,
                           NcclCommunicator communicator, cudaStream_t stream) = nullptr;
  NcclResult (*group_start)() = nullptr;
  NcclResult (*group_end)() = nullptr;
  const char* (*error_string)(NcclResult result) = nullptr;
};

/// Null where the system has no libnccl.so.2, or one that lacks a function. It stays loaded.
const NcclLibrary* load_nccl();

}  // namespace qllm::cuda
