// Multiply-adds from registers: the ceiling of prefill, for each tier that this machine has, by
// worker count. 1 TOPS = 1e12 operations a second; a multiply-add is two.
#include "peak.h"

#include <fmt/format.h>

#include <iostream>
#include <string>

#include "support.h"
#include "topology.h"

namespace {

using namespace qllm;
using namespace qllm::bench;

struct Result {
  int workers;
  const cpu::PeakKernel* kernel;
  Summary tops;
};

const char* type_name(cpu::PeakType type) { return type == cpu::PeakType::int8 ? "int8" : "f32"; }

/// All loops by turns, `repeat` times each after one that warms up.
void measure(int workers, int repeat, std::vector<Result>* results) {
  const auto topology = cpu::Topology::detect({workers, "", ""});
  cpu::WorkerPool pool(*topology);
  std::vector<const cpu::PeakKernel*> kernels;
  for (const cpu::PeakKernel& k : cpu::peak_kernels()) {
    if (cpu::isa_available(k.isa)) kernels.push_back(&k);
  }
  std::vector<std::vector<double>> tops(kernels.size());
  for (int round = 0; round <= repeat; ++round) {
    for (size_t i = 0; i < kernels.size(); ++i) {
      const double value = cpu::measure_peak_tops(pool, *kernels[i]);
      if (round > 0) tops[i].push_back(value);
    }
  }
  for (size_t i = 0; i < kernels.size(); ++i) {
    results->push_back({pool.count(), kernels[i], summarize(tops[i])});
  }
}

std::vector<std::string> missing_tiers() {
  std::vector<std::string> names;
  for (const cpu::PeakKernel& k : cpu::peak_kernels()) {
    if (!cpu::isa_available(k.isa)) names.emplace_back(k.name);
  }
  return names;
}

void print_json(const std::vector<Result>& results) {
  nlohmann::json document = {{"unit", "TOPS"}, {"skipped", missing_tiers()}};
  for (const Result& r : results) {
    document["results"].push_back({{"workers", r.workers},
                                   {"loop", r.kernel->name},
                                   {"isa", cpu::isa_name(r.kernel->isa)},
                                   {"type", type_name(r.kernel->type)},
                                   {"tops", to_json(r.tops)}});
  }
  std::cout << document.dump(2) << "\n";
}

void print_table(const std::vector<Result>& results) {
  fmt::print("{:>7}  {:<5}  {:<22}  {:>9}  {:>9}  {:>9}\n", "workers", "type", "loop", "TOPS",
             "min", "max");
  for (const Result& r : results) {
    fmt::print("{:>7}  {:<5}  {:<22}  {:>9.3f}  {:>9.3f}  {:>9.3f}\n", r.workers,
               type_name(r.kernel->type), r.kernel->name, r.tops.median, r.tops.min, r.tops.max);
  }
  for (const std::string& name : missing_tiers()) {
    fmt::print("skipped: {}: this machine lacks it\n", name);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Peak of int8 multiply-adds and of float FMA from registers, by tier and workers.");
  CommonFlags flags;
  flags.add_to(app);
  CLI11_PARSE(app, argc, argv);
  try {
    std::vector<Result> results;
    const int most = static_cast<int>(cpu::Topology::detect({})->workers().size());
    for (const int workers : worker_counts(flags, most)) measure(workers, flags.repeat, &results);
    flags.json ? print_json(results) : print_table(results);
  } catch (const std::exception& e) {
    std::cerr << "peak: error: " << e.what() << "\n";
    return 1;
  }
}
