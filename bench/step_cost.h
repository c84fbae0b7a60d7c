// What of a decode step goes to meeting and to handing it over, measured on a model of random
// weights.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/profile.h"
#include "cpu_backend.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "model_shape.h"
#include "support.h"
#include "worker_pool.h"

namespace qllm::bench {

/// Nanoseconds, but for the counts.
struct StepCost {
  int workers = 1;
  double barriers = 0;  // of a step
  double depth = 0;     // tokens in the cache, on average
  Summary step;
  Summary barrier;   // one, with nothing between
  Summary dispatch;  // an empty step: to the pool's thread, one region, and back
  Summary waiting;   // in the barriers of a step, mean of the workers: meeting and uneven work

  double spent() const { return barriers * barrier.median + dispatch.median; }
  double percent() const { return 100 * spent() / step.median; }
  double waiting_percent() const { return 100 * waiting.median / step.median; }
};

/// What recording each op (backend/profile.h) adds.
struct TimersCost {
  Summary percent;   // of a step without
  double spans = 0;  // that a worker writes in a step
};

class StepBench {
 public:
  StepBench(const ModelConfig& config, const BackendOptions& options)
      : graph_(build_llama(config)),
        backend_(make_backend("cpu", options)),
        pool_(cpu::worker_pool(*backend_)) {
    weights_ = backend_->load(graph_, std::make_shared<SyntheticSource>(graph_, 1), {});
    plan_ = backend_->compile(graph_, weights_, {1, 1});
    const KvShape shape{config.n_layers, config.n_kv_heads, config.head_dim};
    kv_ = backend_->make_kv_cache(shape, kSteps);
    logits_.resize(static_cast<size_t>(config.vocab_size));
  }

  /// Read bandwidth of the workers now, GB/s.
  double read_gbps(int64_t bytes) { return backend_->measure_read_gbps(bytes); }

  /// Medians of `repeat` measurements of some hundred milliseconds.
  StepCost measure(int repeat) {
    const int steps = std::clamp(static_cast<int>(kSliceNs / step_ns(3)), 3, kSteps);
    std::vector<double> step, barrier, dispatch, waiting;
    const uint32_t rounds = pool_.barrier().rounds();
    step_ns(steps);
    StepCost cost;
    cost.workers = pool_.count();
    cost.depth = (steps - 1) / 2.0;
    cost.barriers = static_cast<double>(pool_.barrier().rounds() - rounds) / steps;
    for (int i = 0; i < repeat; ++i) {
      step.push_back(step_ns(steps));
      barrier.push_back(barrier_ns());
      dispatch.push_back(dispatch_ns());
    }
    pool_.barrier().time_waits();
    for (int i = 0; i < repeat; ++i) {
      const int64_t before = pool_.barrier().waited_ns();
      step_ns(steps);
      waiting.push_back(static_cast<double>(pool_.barrier().waited_ns() - before) / steps /
                        pool_.count());
    }
    cost.step = summarize(step);
    cost.barrier = summarize(barrier);
    cost.dispatch = summarize(dispatch);
    cost.waiting = summarize(waiting);
    return cost;
  }

  /// Single steps of a plan with timers and of one without, by turns: the machine's speed moves by
  /// more than they cost. Of each measurement the medians of both are compared.
  TimersCost timers(int repeat) {
    const auto timed_plan = backend_->compile(graph_, weights_, {1, 1});
    TimersCost cost;
    std::vector<double> percent;
    for (int i = 0; i < repeat; ++i) {
      StepRecorder recorder({.steps = kTurns, .bytes = int64_t{1} << 30});
      timed_plan->set_recorder(&recorder);
      recorder.prepare();
      kv_->truncate(0);
      std::vector<double> plain, timed;
      for (int turn = 0; turn < kTurns; ++turn) {
        plain.push_back(one_step_ns(*plan_));
        timed.push_back(one_step_ns(*timed_plan));
      }
      percent.push_back(100 * (summarize(timed).median / summarize(plain).median - 1));
      const auto spans = recorder.teams().front().tracks.front().spans().size();
      cost.spans = static_cast<double>(spans) / kTurns;
      timed_plan->set_recorder(nullptr);
    }
    cost.percent = summarize(percent);
    return cost;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kSteps = 256;
  static constexpr double kSliceNs = 3e8;
  static constexpr int kRounds = 1000;
  static constexpr int kTurns = kSteps / 2;

  double one_step_ns(Plan& plan) {
    const int32_t token = 1;
    const int32_t output = 0;
    const BatchSlice slice{kv_.get(), 0, 1};
    const auto begin = Clock::now();
    plan.execute({{&token, 1}, {&slice, 1}, {&output, 1}}, logits_);
    return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
  }

  double step_ns(int count) {
    kv_->truncate(0);
    const int32_t token = 1;
    const int32_t output = 0;
    const BatchSlice slice{kv_.get(), 0, 1};
    const auto begin = Clock::now();
    for (int i = 0; i < count; ++i) {
      plan_->execute({{&token, 1}, {&slice, 1}, {&output, 1}}, logits_);
    }
    return std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / count;
  }

  double barrier_ns() {
    double ns = 0;
    pool_.drive([&] { pool_.run(meet, &ns); });
    return ns;
  }

  static void meet(void* context, const cpu::Worker& worker) noexcept {
    worker.barrier->wait();
    const auto begin = Clock::now();
    for (int i = 0; i < kRounds; ++i) worker.barrier->wait();
    const std::chrono::duration<double, std::nano> took = Clock::now() - begin;
    if (worker.index == 0) *static_cast<double*>(context) = took.count() / kRounds;
  }

  double dispatch_ns() {
    const auto begin = Clock::now();
    for (int i = 0; i < kRounds / 10; ++i) {
      pool_.drive([&] { pool_.run([](void*, const cpu::Worker&) noexcept {}, nullptr); });
    }
    return std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / (kRounds / 10);
  }

  Graph graph_;
  std::unique_ptr<Backend> backend_;
  cpu::WorkerPool& pool_;
  std::shared_ptr<const Weights> weights_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<KvCache> kv_;
  std::vector<float> logits_;
};

}  // namespace qllm::bench
