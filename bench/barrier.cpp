// What meeting costs: one barrier inside a region, and one empty region, by worker count.
#include <fmt/format.h>

#include <chrono>
#include <iostream>

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

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Cost of a barrier and of an empty parallel region, by worker count.");
  bench::CommonFlags flags;
  flags.add_to(app);
  int rounds = 1000;
  app.add_option("--rounds", rounds, "barriers and regions per measurement")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000000));
  CLI11_PARSE(app, argc, argv);
  try {
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
