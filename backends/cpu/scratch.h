// One scratch area per worker, shared by all steps of a plan: only one step runs at a time.
#pragma once

#include <cstddef>
#include <vector>

#include "placed_memory.h"
#include "topology.h"

namespace qllm::cpu {

class Scratch {
 public:
  explicit Scratch(const Topology& topology) : topology_(&topology) {}

  /// Makes every worker's area at least this large. Not inside a step.
  void reserve(size_t bytes) {
    if (bytes <= bytes_) return;
    areas_.clear();
    for (const WorkerSlot& slot : topology_->workers()) {
      PlacementOptions options;
      options.topology = topology_;
      options.slot = slot;
      areas_.emplace_back(bytes, options);
    }
    bytes_ = bytes;
  }

  /// Aligned to 4096 bytes.
  template <typename T>
  T* of(int worker) const {
    return areas_[static_cast<size_t>(worker)].as<T>();
  }

 private:
  const Topology* topology_;
  std::vector<PlacedBuffer> areas_;
  size_t bytes_ = 0;
};

}  // namespace qllm::cpu
