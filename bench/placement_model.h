// What decode costs where memory has several nodes: bytes over bandwidths. docs/placement.md.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "backend/numa_policy.h"
#include "topology.h"

namespace qllm::bench {

/// GB/s (1e9 bytes/s), each for reads; 0: no limit.
struct Bandwidths {
  double node = 0;    // what one node's memory gives, whoever reads
  double core = 0;    // what one core takes
  double within = 0;  // from one node to another of the same package
  double link = 0;    // from one package to another, one direction, all nodes together
  double barrier_ns = 0;
  double dispatch_ns = 0;  // once a step
};

/// What one step reads and how often its workers meet.
struct StepWork {
  double bytes = 0;
  double barriers = 0;
};

struct Prediction {
  NumaPolicy policy = NumaPolicy::split;
  int workers = 0;     // of one step
  int teams = 1;       // that run steps at the same time
  double seconds = 0;  // of one step
  std::string bound;   // what takes that long: "memory of node 0", "link 0 -> 1", "cores of node 0"
  double remote_bytes = 0;  // of one step

  double tokens_per_s() const { return 1 / seconds; }
  double tokens_per_s_of_all() const { return teams / seconds; }
};

/// Bytes that workers of one node read from another's memory in a step: (reader, memory) -> bytes.
using Traffic = std::map<std::pair<int, int>, double>;

/// Of the workers of a topology that was detected under `policy` (for replicate: one team's).
inline Traffic traffic_of(const cpu::Topology& topology, NumaPolicy policy, double bytes) {
  Traffic traffic;
  const double share = bytes / static_cast<double>(topology.workers().size());
  for (const cpu::WorkerSlot& worker : topology.workers()) {
    if (policy != NumaPolicy::interleave) {
      traffic[{worker.numa_node, worker.numa_node}] += share;
      continue;
    }
    const auto nodes = topology.memory_places();
    for (const cpu::MemoryPlace& place : nodes) {
      traffic[{worker.numa_node, place.node}] += share / static_cast<double>(nodes.size());
    }
  }
  return traffic;
}

/// The longest of all queues, each at full speed while the others wait for nothing: a bound from
/// below for the time.
class Queues {
 public:
  void add(const std::string& name, double bytes, double gbps) {
    if (gbps <= 0) return;
    bytes_[name] += bytes;
    gbps_[name] = gbps;
  }
  std::pair<std::string, double> longest() const {
    std::pair<std::string, double> found = {"nothing", 0};
    for (const auto& [name, bytes] : bytes_) {
      const double seconds = bytes / gbps_.at(name) / 1e9;
      if (seconds > found.second) found = {name, seconds};
    }
    return found;
  }

 private:
  std::map<std::string, double> bytes_;
  std::map<std::string, double> gbps_;
};

inline Prediction predict(const cpu::Topology& topology, NumaPolicy policy, const StepWork& work,
                          const Bandwidths& bandwidths) {
  Prediction p;
  p.policy = policy;
  p.workers = static_cast<int>(topology.workers().size());
  std::map<int, int> package;
  std::map<int, int> cores;
  for (const cpu::MemoryPlace& place : topology.memory_places())
    package[place.node] = place.package;
  for (const cpu::WorkerSlot& worker : topology.workers()) ++cores[worker.numa_node];
  Queues queues;
  for (const auto& [way, bytes] : traffic_of(topology, policy, work.bytes)) {
    const auto [reader, memory] = way;
    const auto name = [](const char* what, int a) { return what + std::to_string(a); };
    queues.add(name("memory of node ", memory), bytes, bandwidths.node);
    queues.add(name("cores of node ", reader), bytes, bandwidths.core * cores[reader]);
    if (reader == memory) continue;
    p.remote_bytes += bytes;
    const auto arrow = [](const char* what, int a, int b) {
      return what + std::to_string(a) + " -> " + std::to_string(b);
    };
    if (package[reader] == package[memory]) {
      queues.add(arrow("way ", memory, reader), bytes, bandwidths.within);
    } else {
      queues.add(arrow("link ", package[memory], package[reader]), bytes, bandwidths.link);
    }
  }
  const auto [bound, seconds] = queues.longest();
  p.bound = bound;
  p.seconds = seconds + (work.barriers * bandwidths.barrier_ns + bandwidths.dispatch_ns) * 1e-9;
  return p;
}

/// A machine that one does not have: bandwidths with their sources in docs/placement.md.
struct KnownMachine {
  const char* name;
  const char* topology;  // hwloc synthetic description
  double socket_gbps;    // data sheet
  int nodes_of_socket;
  double link_gbps;  // data sheet, one direction, all links
};

/// Of what data sheets promise, so much is taken as reached: reads of memory, and of links.
inline constexpr double kMemoryEfficiency = 0.80;
inline constexpr double kLinkEfficiency = 0.75;
/// Between two sockets, some hundreds of workers: not measured, of the order of a dozen transfers
/// of a line.
inline constexpr double kLargeBarrierNs = 3000;

inline const std::vector<KnownMachine>& known_machines() {
  static const std::vector<KnownMachine> machines = {
      {"xeon-6980p-2s", "package:2 [numa(memory=768GiB)] core:128 pu:2", 844.8, 1, 432},
      {"xeon-6980p-2s-snc3", "package:2 group:3 [numa(memory=256GiB)] core:42 pu:2", 844.8, 3, 432},
      {"epyc-9654-2s-nps1", "package:2 [numa(memory=768GiB)] core:96 pu:2", 460.8, 1, 256},
      {"epyc-9654-2s-nps4", "package:2 group:4 [numa(memory=192GiB)] core:24 pu:2", 460.8, 4, 256}};
  return machines;
}

}  // namespace qllm::bench
