// What several GPUs of one process exchange.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "nccl_library.h"

namespace qllm::cuda {

class Communicator {
 public:
  /// One rank a device, in this order. Throws internal, with what NCCL says.
  Communicator(const NcclLibrary& nccl, const std::vector<int>& devices);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  /// What one rank brings and takes.
  struct Exchange {
    const float* send = nullptr;  // [count]; may be its own part of `receive`
    float* receive = nullptr;     // [ranks, count]
    cudaStream_t stream = nullptr;
  };
  /// Every rank gets what all ranks send, in the order of ranks; each on its own stream.
  void all_gather(std::span<const Exchange> ranks, int64_t count) const;

  /// Held through a step: exchanges of two steps must not be enqueued by turns, or each could wait
  /// for the other.
  std::mutex& mutex() { return mutex_; }

 private:
  void check(NcclResult result, const char* what) const;

  const NcclLibrary& nccl_;
  std::vector<NcclCommunicator> communicators_;
  std::mutex mutex_;
};

}  // namespace qllm::cuda
