#include "worker_pool.h"

#include <doctest/doctest.h>
#include <omp.h>
#include <sched.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "support/allocations.h"
#include "support/sanitized.h"

namespace {

using namespace qllm::cpu;

std::unique_ptr<Topology> machine(int threads) { return Topology::detect({threads, "", ""}); }

// Runs a callable as a region: its address is the context.
template <typename Fn>
void run(WorkerPool& pool, Fn& fn) {
  pool.run(
      [](void* context, const Worker& worker) noexcept { (*static_cast<Fn*>(context))(worker); },
      &fn);
}

TEST_CASE("worker pool: every index once, the team's size, the slot's CPU") {
  for (const int threads : {1, 2, 5}) {
    CAPTURE(threads);
    const auto topology = machine(threads);
    WorkerPool pool(*topology);
    REQUIRE(pool.count() == threads);
    std::vector<int> seen(static_cast<size_t>(threads));
    std::vector<int> cpu(static_cast<size_t>(threads), -1);
    auto mark = [&](const Worker& worker) {
      ++seen[static_cast<size_t>(worker.index)];
      if (worker.count != threads) seen[0] = -1000;
      cpu[static_cast<size_t>(worker.index)] = sched_getcpu();
    };
    pool.drive([&] {
      for (int i = 0; i < 10; ++i) run(pool, mark);
    });
    CHECK(seen == std::vector<int>(static_cast<size_t>(threads), 10));
    for (size_t i = 0; i < cpu.size(); ++i) CHECK(cpu[i] == topology->workers()[i].cpu);
  }
}

// Each round, every worker writes its cell, meets the others, and reads theirs. A worker that runs
// ahead or behind by a round sees a wrong value.
void stress_barrier(WorkerPool& pool, int rounds) {
  const auto count = static_cast<size_t>(pool.count());
  std::vector<int> cells(count);
  std::atomic<int> wrong{0};
  auto region = [&](const Worker& worker) {
    for (int round = 1; round <= rounds; ++round) {
      cells[static_cast<size_t>(worker.index)] = round;
      worker.barrier->wait();
      for (const int cell : cells) {
        if (cell != round) ++wrong;
      }
      worker.barrier->wait();
    }
  };
  pool.drive([&] {
    run(pool, region);
    run(pool, region);
  });
  CHECK(wrong == 0);
}

TEST_CASE("barrier: holds under stress, and with more workers than CPUs ends soon") {
  const int cpus = machine(0)->allowed_cpus();
  for (const int threads : {1, 2, 4, 8, 4 * cpus}) {
    CAPTURE(threads);
    const auto topology = machine(threads);
    WorkerPool pool(*topology);
    const auto begin = std::chrono::steady_clock::now();
    stress_barrier(pool, threads <= cpus ? 20000 : 500);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    CHECK(took.count() < 20.0);
  }
}

TEST_CASE("worker pool: drive rethrows and goes on") {
  const auto topology = machine(2);
  WorkerPool pool(*topology);
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_WITH_AS(pool.drive([] { throw std::runtime_error("from the master"); }),
                         "from the master", std::runtime_error);
    int done = 0;
    pool.drive([&] { ++done; });
    CHECK(done == 1);
  }
}

TEST_CASE("worker pool: drive inside drive runs at once, on the same thread") {
  const auto topology = machine(1);
  WorkerPool pool(*topology);
  std::thread::id outer;
  std::thread::id inner;
  pool.drive([&] {
    outer = std::this_thread::get_id();
    pool.drive([&] { inner = std::this_thread::get_id(); });
  });
  CHECK(outer == inner);
  CHECK(outer != std::this_thread::get_id());
}

TEST_CASE("worker pool: several callers take turns") {
  const auto topology = machine(2);
  WorkerPool pool(*topology);
  int total = 0;  // no lock: turns must be enough
  auto add = [&](const Worker& worker) {
    worker.barrier->wait();
    if (worker.index == 0) ++total;
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 50; ++j) pool.drive([&] { run(pool, add); });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(total == 200);
}

TEST_CASE("worker pool: two pools at once do not disturb each other") {
  const auto topology = machine(2);
  WorkerPool a(*topology);
  WorkerPool b(*topology);
  std::thread other([&] { stress_barrier(a, 300); });
  stress_barrier(b, 300);
  other.join();
}

TEST_CASE("worker pool: what a library runs in parallel on the master uses the team") {
  const auto topology = machine(3);
  WorkerPool pool(*topology);
  int threads = 0;
  bool dynamic = true;
  pool.drive([&] {
    threads = omp_get_max_threads();
    dynamic = omp_get_dynamic() != 0;
  });
  CHECK(threads == 3);
  CHECK_FALSE(dynamic);
}

TEST_CASE("worker pool: a region allocates nothing after the first") {
  if (qllm::test::kSanitized) {
    MESSAGE("[skipped] allocations of a region: not counted under a sanitizer");
    return;
  }
  const auto topology = machine(2);
  WorkerPool pool(*topology);
  int64_t during = -1;
  auto meet = [](const Worker& worker) { worker.barrier->wait(); };
  pool.drive([&] {
    run(pool, meet);
    const int64_t before = qllm::test::allocations();
    for (int i = 0; i < 100; ++i) run(pool, meet);
    during = qllm::test::allocations() - before;
  });
  CHECK(during == 0);
  // The counter itself counts.
  const int64_t before = qllm::test::allocations();
  const std::vector<int> some(100);
  CHECK(qllm::test::allocations() > before);
}

// Run by the next case in a process of its own: the limit is read when the runtime is loaded.
TEST_CASE("worker pool: child under a thread limit" * doctest::skip()) {
  const auto topology = machine(4);
  WorkerPool pool(*topology);
  CHECK(pool.count() == 2);
  stress_barrier(pool, 100);
}

TEST_CASE("worker pool: a runtime that gives fewer threads shrinks the team") {
  const std::string child =
      "OMP_THREAD_LIMIT=2 /proc/" + std::to_string(getpid()) +
      "/exe --no-skip -tc='worker pool: child under a thread limit' >/dev/null";
  CHECK(system(child.c_str()) == 0);
}

}  // namespace
