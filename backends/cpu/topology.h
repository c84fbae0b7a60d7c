// What the machine is and what this process may use of it (hwloc, cgroup quota).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/numa_policy.h"

namespace qllm::cpu {

/// One place for a worker.
struct WorkerSlot {
  int cpu = 0;        // operating system index of the CPU it is pinned to
  int numa_node = 0;  // operating system index of that CPU's memory node
};

/// Where a memory node is.
struct MemoryPlace {
  int node = 0;      // operating system index
  int package = -1;  // of the processor it belongs to; -1: of none alone
};

struct TopologyOptions {
  int threads = 0;        // 0: one per physical core that the process may use, within the quota
  std::string cpus;       // "0-3,8": use only these; empty: all allowed
  std::string synthetic;  // hwloc synthetic description or XML path for tests; empty: this machine
  NumaPolicy numa = NumaPolicy::split;
  int node = -1;  // workers on the CPUs nearest to this memory node only; -1: on all
};

/// Immutable. The hwloc handle lives inside.
class Topology {
 public:
  /// Throws invalid_argument for a CPU list that does not parse or names CPUs that are not allowed.
  static std::unique_ptr<Topology> detect(const TopologyOptions& options);
  virtual ~Topology() = default;

  virtual const std::vector<WorkerSlot>& workers() const = 0;
  virtual int packages() const = 0;
  virtual int numa_nodes() const = 0;
  /// Nodes with memory that the process may use, ascending.
  virtual const std::vector<MemoryPlace>& memory_places() const = 0;
  /// Whether the workers' cores are of several kinds (a hybrid part).
  virtual bool mixed_cores() const = 0;
  virtual int cores() const = 0;         // physical cores that the process may use
  virtual int allowed_cpus() const = 0;  // logical ones
  virtual int64_t l2_bytes() const = 0;  // of a core; 0 unknown
  virtual int64_t l3_bytes() const = 0;
  /// One line each on what limited the choice: cgroup quota, cpuset, hybrid cores, refused binding.
  virtual const std::vector<std::string>& notes() const = 0;
  /// Pins the calling thread to a slot; false where the system refuses.
  virtual bool pin(const WorkerSlot& slot) const = 0;
  /// Binds pages to the slot's node; false where refused (a container), which is no error.
  virtual bool bind_memory(void* p, size_t bytes, const WorkerSlot& slot) const = 0;
  /// What is shared out among workers (weights, keys and values): as bind_memory, but over all
  /// nodes with memory by turns where the policy is `interleave`.
  virtual bool place_memory(void* p, size_t bytes, const WorkerSlot& slot) const = 0;
  /// Whether the system binds memory at all, found by trying it once; nothing need be bound on one
  /// node.
  virtual bool binds() const = 0;  // where not, the last note says so
};

}  // namespace qllm::cpu
