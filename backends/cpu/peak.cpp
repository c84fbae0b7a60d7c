#include "peak.h"

#include <algorithm>
#include <chrono>

namespace qllm::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSeconds = 0.002;     // of a run: long against starting and meeting (us)
constexpr int kRuns = 5;               // the best counts: how a loop meets the pipes is luck
constexpr int64_t kTryRounds = 20000;  // 0.1 to 1 ms; tells how many rounds fill kSeconds

struct PeakRegion {
  const PeakKernel& kernel;
  int64_t rounds;
  double seconds = 0;  // between the barriers, by worker 0

  static void run(void* context, const Worker& worker) noexcept {
    auto& region = *static_cast<PeakRegion*>(context);
    worker.barrier->wait();
    const Clock::time_point begin = Clock::now();
    region.kernel.run(region.rounds);
    worker.barrier->wait();
    if (worker.index == 0) {
      region.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    }
  }
};

double seconds(WorkerPool& pool, const PeakKernel& kernel, int64_t rounds) {
  PeakRegion region{kernel, rounds};
  pool.run(PeakRegion::run, &region);
  return region.seconds;
}

const PeakKernel& peak_kernel(PeakType type, Isa isa, bool any_tier) {
  const PeakKernel* best = nullptr;
  for (const PeakKernel& kernel : peak_kernels()) {  // worst tier first
    if (kernel.type != type || !isa_available(kernel.isa)) continue;
    if (best == nullptr || any_tier || kernel.isa <= isa) best = &kernel;
  }
  return *best;  // the scalar tier has one of each type
}

}  // namespace

const PeakKernel& int8_peak_kernel(Isa isa, bool any_tier) {
  return peak_kernel(PeakType::int8, isa, any_tier);
}

const PeakKernel& f32_peak_kernel(Isa isa) { return peak_kernel(PeakType::f32, isa, false); }

double measure_peak_tops(WorkerPool& pool, const PeakKernel& kernel) {
  double tops = 0;
  pool.drive([&] {
    const double once = std::max(seconds(pool, kernel, kTryRounds), 1e-6);
    const auto rounds = static_cast<int64_t>(kTryRounds * std::max(1.0, kSeconds / once));
    double took = seconds(pool, kernel, rounds);
    for (int i = 1; i < kRuns; ++i) took = std::min(took, seconds(pool, kernel, rounds));
    tops =
        static_cast<double>(kernel.ops) * static_cast<double>(rounds) * pool.count() / took / 1e12;
  });
  return tops;
}

}  // namespace qllm::cpu
