// What bench/stream measures: the variants of reading, what an operation moves, who reads what.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ceiling.h"
#include "topology.h"

namespace qllm::bench {

/// One way to read.
struct ReadVariant {
  int width = 16;  // bytes of a load
  int streams = 1;
  cpu::Prefetch prefetch = cpu::Prefetch::none;
  int64_t ahead = 0;  // bytes
};

inline std::string prefetch_name(const ReadVariant& v) {
  if (v.prefetch == cpu::Prefetch::none) return "none";
  const std::string distance =
      v.ahead < 1024 ? std::to_string(v.ahead) + " B" : std::to_string(v.ahead / 1024) + " KiB";
  return (v.prefetch == cpu::Prefetch::t0 ? "T0 " : "NTA ") + distance;
}

/// All of widths x {1, 2, 4, 8} streams x {no prefetch, T0 and NTA 1 to 16 KiB ahead}; quick: the
/// widest loads in 1 and 4 streams, without prefetch and with T0 4 KiB ahead.
inline std::vector<ReadVariant> read_variants(std::vector<int> widths, bool quick) {
  if (quick && !widths.empty()) widths.erase(widths.begin(), widths.end() - 1);
  const std::vector<int> streams = quick ? std::vector<int>{1, 4} : std::vector<int>{1, 2, 4, 8};
  std::vector<ReadVariant> all;
  for (const int width : widths) {
    for (const int s : streams) {
      all.push_back({width, s, cpu::Prefetch::none, 0});
      for (const cpu::Prefetch hint : {cpu::Prefetch::t0, cpu::Prefetch::nta}) {
        if (quick && hint == cpu::Prefetch::nta) continue;
        for (const int64_t kib : {1, 2, 4, 8, 16}) {
          if (!quick || kib == 4) all.push_back({width, s, hint, kib * 1024});
        }
      }
    }
  }
  return all;
}

/// read: one array; copy: a = b; triad: a = b + 3 c. An ordinary store first reads the line that it
/// writes (write-allocate) and the line is written back later: two transfers; a non-temporal one is
/// one.
struct MemoryOp {
  const char* name;
  bool is_read;
  bool is_triad;
  bool non_temporal;
  int transfers;  // of an array's bytes over the bus
};
inline constexpr MemoryOp kMemoryOps[] = {{"read", true, false, false, 1},
                                          {"copy", false, false, false, 3},
                                          {"copy nt", false, false, true, 2},
                                          {"triad", false, true, false, 4},
                                          {"triad nt", false, true, true, 3}};

/// Workers of one node reading the memory of another.
struct NodePair {
  int worker_node;
  int memory_node;
  std::vector<int> workers;  // indices
};

/// Every node that has workers beside every node that has workers.
inline std::vector<NodePair> node_pairs(const std::vector<cpu::WorkerSlot>& slots) {
  std::vector<NodePair> homes;  // of each node by itself, in the order of the workers
  for (size_t i = 0; i < slots.size(); ++i) {
    const int node = slots[i].numa_node;
    if (homes.empty() || homes.back().worker_node != node) homes.push_back({node, node, {}});
    homes.back().workers.push_back(static_cast<int>(i));
  }
  std::vector<NodePair> pairs;
  for (const NodePair& home : homes) {
    for (const NodePair& other : homes) {
      pairs.push_back({home.worker_node, other.worker_node, home.workers});
    }
  }
  return pairs;
}

/// Where the k-th of `count` equal parts of `bytes` begins, in whole pages of 4096.
inline int64_t part_begin(int64_t bytes, int k, int count) {
  return bytes / 4096 * k / count * 4096;
}

}  // namespace qllm::bench
