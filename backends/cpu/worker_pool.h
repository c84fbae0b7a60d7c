// One thread that owns an OpenMP team; the team runs SPMD regions, meets at barriers, sleeps
// between.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "topology.h"

namespace qllm::cpu {

/// Sense-reversing barrier for a fixed team: spins a bounded while, then yields.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}
  void wait() noexcept;

 private:
  const int count_;
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
