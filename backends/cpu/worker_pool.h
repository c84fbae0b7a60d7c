// One thread that owns an OpenMP team; the team runs SPMD regions, meets at barriers, sleeps
// between.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "topology.h"

namespace qllm::cpu {

/// Barrier of a fixed team, by generations: spins a bounded while, then yields the CPU.
class Barrier {
 public:
  /// `spins` pauses before each further look yields; few where workers share a CPU.
  explicit Barrier(int count, int spins = 2000) : count_(count), spins_(spins) {}
  void wait() noexcept;

 private:
  const int count_;
  const int spins_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
};

/// What a worker sees of its team inside a region.
struct Worker {
  int index = 0;
  int count = 1;
  Barrier* barrier = nullptr;
};

/// Function pointer and argument instead of std::function: a step allocates nothing.
using RegionFn = void (*)(void* context, const Worker& worker) noexcept;

class WorkerPool {
 public:
  /// The topology must outlive the pool. Throws unsupported where the system refuses the threads;
  /// count() is less than topology.workers() where the OpenMP runtime has a lower limit.
  explicit WorkerPool(const Topology& topology);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int count() const;
  /// Runs fn on the owning thread and waits; rethrows what it throws. Called from that thread it
  /// runs fn at once. Several callers take turns.
  void drive(const std::function<void()>& fn);
  /// One OpenMP parallel region, every worker pinned to its slot. Only from inside drive().
  void run(RegionFn fn, void* context);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qllm::cpu
