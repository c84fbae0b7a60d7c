#include "memory_nodes.h"

#include <algorithm>
#include <limits>
#include <tuple>

namespace qllm::cpu {
namespace {

bool holds(hwloc_obj_t node, hwloc_obj_t pu) {
  return hwloc_bitmap_isincluded(pu->cpuset, node->cpuset) != 0;
}

int index(hwloc_obj_t node) { return static_cast<int>(node->os_index); }

// Depth of the deepest object that holds both: the larger, the nearer.
int common_depth(hwloc_topology_t topology, hwloc_obj_t a, hwloc_obj_t b) {
  // Memory objects hang beside the tree: their parents are in it.
  while (a->depth < 0) a = a->parent;
  while (b->depth < 0) b = b->parent;
  return hwloc_get_common_ancestor_obj(topology, a, b)->depth;
}

// The node that holds the CPU, with memory or without; null where there is none.
hwloc_obj_t own_node(hwloc_topology_t topology, hwloc_obj_t pu) {
  hwloc_obj_t node = nullptr;
  while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr) {
    if (holds(node, pu)) return node;
  }
  return nullptr;
}

}  // namespace

MemoryNodes::MemoryNodes(hwloc_topology_t topology) : topology_(topology) {
  const hwloc_const_nodeset_t allowed = hwloc_topology_get_allowed_nodeset(topology);
  hwloc_obj_t node = nullptr;
  while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr) {
    const bool ours = hwloc_bitmap_isset(allowed, node->os_index) == 1;
    if (ours && node->attr->numanode.local_memory > 0) with_memory_.push_back(node);
  }
  unsigned count = 1;
  hwloc_distances_s* latencies = nullptr;
  const int error = hwloc_distances_get_by_type(topology, HWLOC_OBJ_NUMANODE, &count, &latencies,
                                                HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0);
  if (error == 0 && count > 0) latencies_ = latencies;
}

MemoryNodes::~MemoryNodes() {
  if (latencies_ != nullptr) hwloc_distances_release(topology_, latencies_);
}

int MemoryNodes::count() const { return std::max<int>(1, static_cast<int>(with_memory_.size())); }

std::vector<MemoryPlace> MemoryNodes::places() const {
  std::vector<MemoryPlace> all;
  for (hwloc_obj_t node : with_memory_) {
    const hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(topology_, HWLOC_OBJ_PACKAGE, node);
    all.push_back(
        {index(node), package != nullptr ? static_cast<int>(package->logical_index) : -1});
  }
  std::sort(all.begin(), all.end(),
            [](const MemoryPlace& a, const MemoryPlace& b) { return a.node < b.node; });
  return all;
}

int MemoryNodes::node_of(hwloc_obj_t pu) const {
  for (hwloc_obj_t node : with_memory_) {
    if (holds(node, pu)) return index(node);
  }
  return with_memory_.empty() ? 0 : index(nearest(pu));
}

hwloc_obj_t MemoryNodes::nearest(hwloc_obj_t pu) const {
  const hwloc_obj_t own = own_node(topology_, pu);
  const auto distance = [&](hwloc_obj_t node) {
    return std::tuple(latency(own, node), -common_depth(topology_, pu, node));
  };
  return *std::min_element(with_memory_.begin(), with_memory_.end(),
                           [&](hwloc_obj_t a, hwloc_obj_t b) { return distance(a) < distance(b); });
}

uint64_t MemoryNodes::latency(hwloc_obj_t from, hwloc_obj_t to) const {
  hwloc_uint64_t there = 0;
  hwloc_uint64_t back = 0;
  const bool known = from != nullptr && latencies_ != nullptr &&
                     hwloc_distances_obj_pair_values(latencies_, from, to, &there, &back) == 0;
  return known ? there : std::numeric_limits<uint64_t>::max();
}

}  // namespace qllm::cpu
