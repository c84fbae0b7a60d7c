// The honest ceiling of decode: how fast all workers together read memory, each its own.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ceiling.h"
#include "placed_memory.h"
#include "topology.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// Read-only streaming of all workers over buffers in their own nodes' memory, in as many streams
/// as read fastest here (bench/stream tries more ways; none was faster where it was measured). The
/// buffers are kept from one measurement to the next.
class ReadBandwidth {
 public:
  /// `bytes` in all, at least 64 MiB; take four times the last-level caches or more, or the caches
  /// answer for the memory. Both others must outlive this. Throws out_of_memory.
  ReadBandwidth(WorkerPool& pool, const Topology& topology, int64_t bytes);

  /// One measurement of about 30 ms: whole passes over all buffers. GB/s (1e9 bytes).
  double measure();

  /// What one pass reads.
  int streams() const { return streams_; }
  int64_t bytes() const { return share_ * static_cast<int64_t>(buffers_.size()); }

 private:
  double seconds(int streams, int passes);

  WorkerPool& pool_;
  int64_t share_ = 0;  // bytes of each worker
  int streams_ = 1;
  int passes_ = 1;
  std::vector<PlacedBuffer> buffers_;  // [workers]
};

/// One measurement with buffers of its own; throws as ReadBandwidth does.
double measure_read_gbps(WorkerPool& pool, const Topology& topology, int64_t bytes);

}  // namespace qllm::cpu
