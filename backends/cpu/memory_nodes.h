// The memory nodes that a process may use, and which of them is nearest to a CPU (hwloc).
#pragma once

#include <hwloc.h>

#include <cstdint>
#include <vector>

#include "topology.h"

namespace qllm::cpu {

/// Nodes with memory that this process may use. The topology must outlive it.
class MemoryNodes {
 public:
  explicit MemoryNodes(hwloc_topology_t topology);
  ~MemoryNodes();
  MemoryNodes(const MemoryNodes&) = delete;
  MemoryNodes& operator=(const MemoryNodes&) = delete;

  /// At least 1.
  int count() const;
  /// All of them, ascending.
  std::vector<MemoryPlace> places() const;

  /// Operating system index of the node whose memory a CPU should use: its own, or the nearest that
  /// has some. Of several at hand (DRAM and high-bandwidth memory) the first, which hwloc makes the
  /// ordinary one. 0 where no node has memory.
  int node_of(hwloc_obj_t pu) const;

 private:
  hwloc_obj_t nearest(hwloc_obj_t pu) const;
  uint64_t latency(hwloc_obj_t from, hwloc_obj_t to) const;

  hwloc_topology_t topology_;
  std::vector<hwloc_obj_t> with_memory_;
  hwloc_distances_s* latencies_ = nullptr;  // null: the machine does not tell
};

}  // namespace qllm::cpu
