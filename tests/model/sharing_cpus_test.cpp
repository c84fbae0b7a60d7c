// More workers than CPUs, other programs, several engines: slower, never stuck, the same answers;
// and an idle engine uses no CPU.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "qllm/qllm.hpp"
#include "support/sanitized.h"

namespace {

using Clock = std::chrono::steady_clock;

qllm::Model model_of(int threads, const std::string& cpus = "") {
  qllm::SyntheticShape shape;
  shape.d_model = 256;
  shape.d_ff = 512;
  shape.n_layers = 8;
  shape.n_heads = 4;
  shape.n_kv_heads = 2;
  shape.vocab = 1000;
  qllm::OpenOptions options;
  options.device = "cpu";
  options.threads = threads;
  options.cpus = cpus;
  options.max_batch_tokens = 16;
  options.kv_memory_bytes = int64_t{64} << 20;
  return qllm::Model::synthetic(shape, options);
}

std::vector<int32_t> generate(const qllm::Model& model, int64_t count) {
  qllm::GenerateOptions options;
  options.max_tokens = count;
  options.temperature = 0;
  qllm::Session session(model);
  const std::vector<int32_t> prompt = {1, 2, 3, 4, 5};
  return session.generate_ids(prompt, options).ids;
}

/// Of one decode step, the median of some.
double step_seconds(const qllm::Model& model) {
  qllm::Session session(model);
  session.decode(1);
  std::vector<double> times;
  for (int i = 0; i < 61; ++i) {
    const auto begin = Clock::now();
    session.decode(2);
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(times.begin(), times.begin() + 30, times.end());
  return times[30];
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// Threads that use all CPU that they get.
class Busy {
 public:
  explicit Busy(int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this] {
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
    }
  }
  ~Busy() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

TEST_CASE("sharing CPUs: an idle engine uses none") {
  const auto model = model_of(2);
  generate(model, 8);
  // OpenMP's runtime looks out for the next step some milliseconds before it sleeps.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  const double used = cpu_seconds() - before;
  MESSAGE("CPU time of an idle second: ", used * 1e3, " ms");
  CHECK(used < 0.003);
}

TEST_CASE("sharing CPUs: twice the workers on the same CPUs is slower, not stuck, and as right") {
  const auto two = model_of(2, "0");
  const auto four = model_of(4, "0");
  CHECK(generate(two, 32) == generate(four, 32));
  const double alone = step_seconds(two);
  const double crowded = step_seconds(four);
  MESSAGE("step of 2 workers on one CPU ", alone * 1e3, " ms, of 4 ", crowded * 1e3, " ms");
  if (qllm::test::kSanitized) return;
  // Some 40 barriers of a microsecond or two for each switch of workers; a time slice (3 ms) for
  // each would be a hundred times the step.
  CHECK(crowded < 4 * alone + 1e-3);
}

TEST_CASE("sharing CPUs: beside busy programs a step takes its share, not its patience") {
  const auto model = model_of(0);
  const double alone = step_seconds(model);
  const int cpus = static_cast<int>(model.machine().cpus.size());
  const auto expected = generate(model, 16);
  const Busy busy(cpus);
  CHECK(generate(model, 16) == expected);
  const double beside = step_seconds(model);
  MESSAGE("step alone ", alone * 1e3, " ms, beside ", cpus, " busy threads ", beside * 1e3, " ms");
  if (qllm::test::kSanitized) return;
  // Each worker may lose its CPU for a time slice at each of some 40 barriers in the worst case.
  CHECK(beside < 0.25);
}

TEST_CASE("sharing CPUs: two engines at once both finish, with their own right answers") {
  const auto a = model_of(0);
  const auto b = model_of(0);
  const auto expected = generate(a, 64);
  const auto begin = Clock::now();
  for (int i = 0; i < 2; ++i) CHECK(generate(b, 64) == expected);
  const double in_turn = std::chrono::duration<double>(Clock::now() - begin).count();
  std::vector<int32_t> of_a, of_b;
  const auto start = Clock::now();
  std::thread other([&] { of_b = generate(b, 64); });
  of_a = generate(a, 64);
  other.join();
  const double at_once = std::chrono::duration<double>(Clock::now() - start).count();
  CHECK(of_a == expected);
  CHECK(of_b == expected);
  MESSAGE("two engines: one after the other ", in_turn * 1e3, " ms, at once ", at_once * 1e3,
          " ms");
  if (!qllm::test::kSanitized) CHECK(at_once < 10 * in_turn + 0.5);
}

}  // namespace
