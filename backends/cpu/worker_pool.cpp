#include "worker_pool.h"

#include <linux/futex.h>
#include <omp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <latch>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"

// LLVM's runtime lets idle threads spin for 200 ms, GNU's for some. Absent (null) in GNU's.
extern "C" __attribute__((weak)) void kmp_set_blocktime(int milliseconds);

namespace qllm::cpu {
namespace {

constexpr int kIdleSpinMs = 5;

void cpu_pause() noexcept { __builtin_ia32_pause(); }

// A pause takes 10 to 140 cycles: 300 are some 2 to 15 us, longer than most skews between workers
// that have a CPU each. Workers that share one only keep the other from arriving.
constexpr int kSpinsSharedCpu = 20;

// From then on the CPU is lent at every 64th pause: to a worker of ours that waits for it, or to
// another program or engine; where nobody wants it that costs 0.3 us. After 30 loans (some 50 us,
// no less than a sleep and its end cost) the waiter sleeps: whoever it waits for has lost its CPU.
constexpr int kSpinsPerLoan = 64;
constexpr int kLoans = 30;

void futex(std::atomic<uint32_t>* word, int operation, uint32_t value) noexcept {
  static_assert(sizeof(*word) == sizeof(uint32_t));
  syscall(SYS_futex, word, operation, value, nullptr, nullptr, 0);
}

int spins_for(const std::vector<WorkerSlot>& slots) {
  std::set<int> cpus;
  for (const WorkerSlot& slot : slots) cpus.insert(slot.cpu);
  return cpus.size() == slots.size() ? Barrier::kSpins : kSpinsSharedCpu;
}

// An OpenMP runtime ends the process when it cannot start a thread. Find out before it does.
void require_threads(int count) {
  std::latch release(1);
  std::vector<std::thread> threads;
  bool started = true;
  try {
    for (int i = 1; i < count; ++i) threads.emplace_back([&release] { release.wait(); });
  } catch (const std::system_error&) {
    started = false;
  }
  const size_t running = threads.size();
  release.count_down();
  for (std::thread& thread : threads) thread.join();
  require(started, ErrorCode::unsupported,
          "worker pool: expected to start {} threads, the system allows {}", count, running + 1);
}

}  // namespace

void Barrier::wait() noexcept {
  if (!timed_) return meet();
  const auto begin = std::chrono::steady_clock::now();
  meet();
  const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - begin;
  waited_ns_.fetch_add(took.count(), std::memory_order_relaxed);
}

void Barrier::meet() noexcept {
  const uint32_t generation = generation_.load(std::memory_order_relaxed) & ~kSleeps;
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) != count_ - 1) return wait_for(generation);
  arrived_.store(0, std::memory_order_relaxed);
  const uint32_t before = generation_.exchange(generation + kStep, std::memory_order_acq_rel);
  if ((before & kSleeps) != 0) futex(&generation_, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void Barrier::wait_for(uint32_t generation) noexcept {
  const auto opened = [&] {
    return (generation_.load(std::memory_order_acquire) & ~kSleeps) != generation;
  };
  int pauses = spins_;
  for (int loans = 0; loans <= kLoans; ++loans) {
    for (; pauses > 0; --pauses) {
      if (opened()) return;
      cpu_pause();
    }
    sched_yield();
    pauses = std::min(spins_, kSpinsPerLoan);
  }
  // Whoever opens the barrier sees the bit, or this sees that it is open.
  uint32_t seen = generation;
  generation_.compare_exchange_strong(seen, generation | kSleeps, std::memory_order_acq_rel);
  while (!opened()) futex(&generation_, FUTEX_WAIT_PRIVATE, generation | kSleeps);
}

struct WorkerPool::Impl {
  explicit Impl(const Topology& machine);
  ~Impl();

  void serve();                                // the owning thread's life
  void call(const std::function<void()>& fn);  // hands fn over and waits
  int delivered_threads() const;
  void pin_once(int index);
  void run(RegionFn fn, void* context);

  const Topology& topology;
  std::vector<WorkerSlot> slots;
  std::vector<std::thread::id> pinned;  // the thread that is pinned to each slot
  int count = 1;
  std::unique_ptr<Barrier> barrier;

  std::mutex turn;  // held by the caller whose function runs
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable finished;
  const std::function<void()>* job = nullptr;
  std::exception_ptr error;
  bool stop = false;
  std::thread master;  // last: starts when the rest is there
};

WorkerPool::Impl::Impl(const Topology& machine) : topology(machine), slots(machine.workers()) {
  require(!slots.empty(), ErrorCode::invalid_argument, "worker pool: expected at least one worker");
  require_threads(static_cast<int>(slots.size()) + 1);
  master = std::thread([this] { serve(); });
}

WorkerPool::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    stop = true;
  }
  wake.notify_one();
  master.join();
}

void WorkerPool::Impl::serve() {
  std::unique_lock lock(mutex);
  while (true) {
    wake.wait(lock, [this] { return stop || job != nullptr; });
    if (job == nullptr) return;
    lock.unlock();
    std::exception_ptr thrown;
    try {
      (*job)();
    } catch (...) {
      thrown = std::current_exception();
    }
    lock.lock();
    error = std::move(thrown);
    job = nullptr;
    finished.notify_one();
  }
}

void WorkerPool::Impl::call(const std::function<void()>& fn) {
  if (std::this_thread::get_id() == master.get_id()) return fn();
  const std::lock_guard one_at_a_time(turn);
  std::exception_ptr thrown;
  {
    std::unique_lock lock(mutex);
    job = &fn;
    wake.notify_one();
    finished.wait(lock, [this] { return job == nullptr; });
    thrown = std::move(error);
    error = nullptr;
  }
  if (thrown) std::rethrow_exception(thrown);
}

int WorkerPool::Impl::delivered_threads() const {
  int delivered = 1;
#pragma omp parallel num_threads(static_cast <int>(slots.size()))
  {
    if (omp_get_thread_num() == 0) delivered = omp_get_num_threads();
  }
  return delivered;
}

// The team's threads stay the same from region to region, so this pins in the first one; a runtime
// that brings another thread gets that one pinned too.
void WorkerPool::Impl::pin_once(int index) {
  const auto i = static_cast<size_t>(index);
  if (pinned[i] == std::this_thread::get_id()) return;
  pinned[i] = std::this_thread::get_id();
  topology.pin(slots[i]);  // a refusal leaves the placing to the system
}

void WorkerPool::Impl::run(RegionFn fn, void* context) {
  bool complete = true;
#pragma omp parallel num_threads(count)
  {
    const int index = omp_get_thread_num();
    // With fewer than `count` the barrier would never open: then nobody starts.
    if (omp_get_num_threads() == count) {
      pin_once(index);
      fn(context, Worker{index, count, barrier.get()});
    } else if (index == 0) {
      complete = false;
    }
  }
  require(complete, ErrorCode::unsupported,
          "worker pool: expected a team of {} threads, the OpenMP runtime gave fewer", count);
}

WorkerPool::WorkerPool(const Topology& topology) : impl_(std::make_unique<Impl>(topology)) {
  Impl& impl = *impl_;
  drive([&impl] {
    // These belong to the owning thread alone, not to the process. What a library (oneDNN) runs in
    // parallel on this thread outside a region uses the same team.
    omp_set_dynamic(0);
    if (kmp_set_blocktime != nullptr) kmp_set_blocktime(kIdleSpinMs);
    omp_set_num_threads(static_cast<int>(impl.slots.size()));
    impl.count = impl.delivered_threads();  // fewer under OMP_THREAD_LIMIT
    omp_set_num_threads(impl.count);
    impl.slots.resize(static_cast<size_t>(impl.count));
    impl.pinned.resize(impl.slots.size());
    impl.barrier = std::make_unique<Barrier>(impl.count, spins_for(impl.slots));
  });
}

WorkerPool::~WorkerPool() = default;

int WorkerPool::count() const { return impl_->count; }

Barrier& WorkerPool::barrier() const { return *impl_->barrier; }

void WorkerPool::drive(const std::function<void()>& fn) { impl_->call(fn); }

void WorkerPool::run(RegionFn fn, void* context) { impl_->run(fn, context); }

}  // namespace qllm::cpu
