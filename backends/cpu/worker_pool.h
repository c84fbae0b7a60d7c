// One thread that owns an OpenMP team; the team runs SPMD regions, meets at barriers, sleeps
// between.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "backend/profile.h"
#include "topology.h"

namespace qllm::cpu {

/// Barrier of a fixed team, by generations: spins a bounded while, lending the CPU to others by and
/// by, then sleeps (futex).
class Barrier {
 public:
  /// `spins`: pauses before a waiter lends its CPU for the first time; few where workers share one.
  explicit Barrier(int count, int spins = kSpins) : count_(count), spins_(spins) {}
  void wait() noexcept;

  /// How often it has opened, modulo 2^31.
  uint32_t rounds() const noexcept { return generation_.load(std::memory_order_relaxed) / kStep; }
  /// Measures from now on how long workers wait, which costs some 50 ns a wait. Not in a region.
  void time_waits() noexcept { timed_ = true; }
  /// Sum over all workers since time_waits().
  int64_t waited_ns() const noexcept { return waited_ns_.load(std::memory_order_relaxed); }

  static constexpr int kSpins = 300;

 private:
  // The lowest bit of the generation says that someone sleeps until it changes.
  static constexpr uint32_t kSleeps = 1;
  static constexpr uint32_t kStep = 2;

  void meet() noexcept;
  void wait_for(uint32_t generation) noexcept;

  const int count_;
  const int spins_;
  bool timed_ = false;
  alignas(64) std::atomic<int> arrived_{0};
  std::atomic<int64_t> waited_ns_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
};

/// What a worker sees of its team inside a region.
struct Worker {
  int index = 0;
  int count = 1;
  Barrier* barrier = nullptr;
  SpanTrack* spans = nullptr;  // of this worker; null: nobody wants them

  /// Waits until all have come.
  void meet() const noexcept {
    if (spans == nullptr) return barrier->wait();
    const int64_t arrived = profile_now();
    barrier->wait();
    spans->lap_met(arrived);
  }
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
  /// What every Worker::barrier points to.
  Barrier& barrier() const;
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
