// What meeting costs: one barrier inside a region, and one empty region, by worker count; or what
// of a decode step of a model goes to it.
#include <fmt/format.h>

#include <chrono>
#include <iostream>

#include "step_cost.h"
#include "support.h"
#include "topology.h"
#include "worker_pool.h"

namespace {

using namespace qllm;
using namespace qllm::cpu;
using Clock = std::chrono::steady_clock;

struct BarrierLoop {
  int rounds;
  double seconds = 0;
};

void barrier_loop(void* context, const Worker& worker) noexcept {
  auto& loop = *static_cast<BarrierLoop*>(context);
  worker.barrier->wait();
  const auto begin = Clock::now();
  for (int i = 0; i < loop.rounds; ++i) worker.barrier->wait();
  if (worker.index == 0) loop.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
}

void nothing(void*, const Worker&) noexcept {}

struct Result {
  int workers;
  bench::Summary barrier_ns;
  bench::Summary region_ns;
};

Result measure(int threads, int rounds, int repeat) {
  const auto topology = Topology::detect({threads, "", ""});
  WorkerPool pool(*topology);
  std::vector<double> barrier;
  std::vector<double> region;
  pool.drive([&] {
    for (int i = 0; i <= repeat; ++i) {
      BarrierLoop loop{rounds};
      pool.run(barrier_loop, &loop);
      const auto begin = Clock::now();
      for (int j = 0; j < rounds; ++j) pool.run(nothing, nullptr);
      const std::chrono::duration<double> took = Clock::now() - begin;
      if (i == 0) continue;  // warms up
      barrier.push_back(loop.seconds / rounds * 1e9);
      region.push_back(took.count() / rounds * 1e9);
    }
  });
  return {pool.count(), bench::summarize(barrier), bench::summarize(region)};
}

void print_json(const std::vector<Result>& results) {
  nlohmann::json document = {{"unit", "ns"}};
  for (const Result& r : results) {
    document["results"].push_back({{"workers", r.workers},
                                   {"barrier_ns", bench::to_json(r.barrier_ns)},
                                   {"region_ns", bench::to_json(r.region_ns)}});
  }
  std::cout << document.dump(2) << "\n";
}

void print_table(const std::vector<Result>& results) {
  fmt::print("{:>7}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}\n", "workers", "barrier ns",
             "min", "max", "region ns", "min", "max");
  for (const Result& r : results) {
    fmt::print("{:>7}  {:>10.0f}  {:>10.0f}  {:>10.0f}  {:>10.0f}  {:>10.0f}  {:>10.0f}\n",
               r.workers, r.barrier_ns.median, r.barrier_ns.min, r.barrier_ns.max,
               r.region_ns.median, r.region_ns.min, r.region_ns.max);
  }
}

void print_step(const bench::StepCost& c, const bench::TimersCost& timers, bool json) {
  if (json) {
    const nlohmann::json document = {{"unit", "ns"},
                                     {"workers", c.workers},
                                     {"barriers_per_step", c.barriers},
                                     {"step_ns", bench::to_json(c.step)},
                                     {"barrier_ns", bench::to_json(c.barrier)},
                                     {"dispatch_ns", bench::to_json(c.dispatch)},
                                     {"waiting_ns", bench::to_json(c.waiting)},
                                     {"percent", c.percent()},
                                     {"waiting_percent", c.waiting_percent()},
                                     {"timers_percent", bench::to_json(timers.percent)},
                                     {"spans_per_step", timers.spans}};
    std::cout << document.dump(2) << "\n";
    return;
  }
  fmt::print("{} workers, a step of {:.3f} ms ({:.3f} to {:.3f})\n", c.workers, c.step.median / 1e6,
             c.step.min / 1e6, c.step.max / 1e6);
  fmt::print("{:.0f} barriers of {:.0f} ns and a dispatch of {:.1f} us: {:.2f} % of the step\n",
             c.barriers, c.barrier.median, c.dispatch.median / 1e3, c.percent());
  fmt::print("waiting in barriers, uneven work included: {:.2f} %\n", c.waiting_percent());
  fmt::print("recording {:.0f} spans a worker adds {:.2f} % ({:.2f} to {:.2f})\n", timers.spans,
             timers.percent.median, timers.percent.min, timers.percent.max);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Cost of a barrier and of an empty parallel region, by worker count.");
  bench::CommonFlags flags;
  flags.add_to(app);
  int rounds = 1000;
  app.add_option("--rounds", rounds, "barriers and regions per measurement")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000000));
  std::string model;
  app.add_option("--step", model,
                 "the share of one decode step of this shape instead: d_model, d_ff, n_layers, "
                 "n_heads, n_kv_heads, head_dim, vocab; what is not named is of a 1.0 B shape")
      ->type_name("KEY=N,...");
  std::string scheme = "int8";
  app.add_option("--scheme", scheme, "of --step: how weights are held")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    if (!model.empty()) {
      BackendOptions options;
      options.threads = flags.threads;
      options.scheme = parse_scheme(scheme);
      bench::StepBench step(bench::parse_model(model), options);
      const bench::StepCost cost = step.measure(flags.repeat);
      print_step(cost, step.timers(flags.repeat), flags.json);
      return 0;
    }
    std::vector<Result> results;
    const int most = static_cast<int>(Topology::detect({})->workers().size());
    for (const int workers : bench::worker_counts(flags, most)) {
      results.push_back(measure(workers, rounds, flags.repeat));
    }
    flags.json ? print_json(results) : print_table(results);
  } catch (const std::exception& e) {
    std::cerr << "barrier: error: " << e.what() << "\n";
    return 1;
  }
}
