// Which ops of a graph the cpu runs as one stage: without a barrier between them, since each worker
// goes on with what it made itself.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"
#include "graph/liveness.h"

namespace qllm::cpu {

struct Fusion {
  /// Per op: the SwiGluOp or RopeKvWriteOp behind a linear that goes on with its columns, or kNone.
  std::vector<int32_t> follower;
  /// RMS norm and the linear that reads it, a linear and its follower share a stage. What lies
  /// between gate/up and SwiGLU is never stored.
  Stages stages;

  bool has_follower(size_t op) const { return follower[op] != kNone; }
};

Fusion find_fusion(const Graph& graph);

/// Outputs of each weight that must stay with one worker, a multiple of 64: 128 for interleaved
/// gate and up, whole heads for QKV.
std::vector<int64_t> shard_units(const Graph& graph);

}  // namespace qllm::cpu
