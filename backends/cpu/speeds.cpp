#include "speeds.h"

#include <chrono>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "kernels/ceiling.h"
#include "placed_memory.h"

namespace qllm::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBytes = size_t{16} << 20;  // of each worker: more than its share of a cache
constexpr size_t kPart = size_t{1} << 20;
constexpr auto kTime = std::chrono::milliseconds(30);

struct SpeedRegion {
  std::vector<PlacedBuffer>* buffers;
  const ReadKernel& kernel;
  std::vector<double>* speeds;

  static void run(void* context, const Worker& worker) noexcept {
    auto& self = *static_cast<SpeedRegion*>(context);
    const auto index = static_cast<size_t>(worker.index);
    auto* const own = (*self.buffers)[index].as<std::byte>();
    std::memset(own, 1, kBytes);
    worker.barrier->wait();
    const Clock::time_point begin = Clock::now();
    int64_t parts = 0;
    do {
      const size_t part = static_cast<size_t>(parts++) % (kBytes / kPart);
      self.kernel.run({own + part * kPart, kPart, 4});
    } while (Clock::now() - begin < kTime);
    const std::chrono::duration<double> took = Clock::now() - begin;
    (*self.speeds)[index] = static_cast<double>(parts) / took.count();
  }
};

}  // namespace

std::vector<int64_t> share_out(int64_t units, const std::vector<double>& speeds) {
  require(!speeds.empty(), ErrorCode::internal, "shares: expected a worker");
  double total = 0;
  for (const double speed : speeds) {
    require(std::isfinite(speed) && speed > 0, ErrorCode::internal, "shares: a speed of {}", speed);
    total += speed;
  }
  std::vector<int64_t> bounds = {0};
  double until = 0;
  for (const double speed : speeds) {
    until += speed;
    // Equal speeds give units * w / workers, rounded down.
    bounds.push_back(static_cast<int64_t>(static_cast<double>(units) * until / total));
  }
  bounds.back() = units;
  return bounds;
}

std::vector<double> measure_speeds(WorkerPool& pool, const Topology& topology) {
  std::vector<PlacedBuffer> buffers;
  for (size_t i = 0; i < static_cast<size_t>(pool.count()); ++i) {
    buffers.emplace_back(kBytes, PlacementOptions{true, &topology, topology.workers()[i]});
  }
  std::vector<double> speeds(buffers.size(), 1);
  SpeedRegion region{&buffers, best_read_kernel(), &speeds};
  pool.drive([&] { pool.run(SpeedRegion::run, &region); });
  double sum = 0;
  for (const double speed : speeds) sum += speed;
  for (double& speed : speeds) speed *= static_cast<double>(speeds.size()) / sum;
  return speeds;
}

}  // namespace qllm::cpu
