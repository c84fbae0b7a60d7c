#include "bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/math.h"

namespace qllm::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLeastBytes = int64_t{64} << 20;
constexpr double kSeconds = 0.030;  // long against starting and meeting (us), short for the user

struct FillRegion {
  std::vector<PlacedBuffer>* buffers;

  // The owner touches its pages first: they come from its node even where binding is refused. Not
  // zero, or the kernel could answer all reads from one page.
  static void run(void* context, const Worker& worker) noexcept {
    PlacedBuffer& own =
        (*static_cast<FillRegion*>(context)->buffers)[static_cast<size_t>(worker.index)];
    std::memset(own.data(), 1, own.bytes());
  }
};

struct ReadRegion {
  const std::vector<PlacedBuffer>* buffers;
  const ReadKernel& kernel;
  int streams;
  int passes;
  double seconds = 0;  // between the barriers, by worker 0

  static void run(void* context, const Worker& worker) noexcept {
    auto& region = *static_cast<ReadRegion*>(context);
    const PlacedBuffer& own = (*region.buffers)[static_cast<size_t>(worker.index)];
    worker.barrier->wait();
    const Clock::time_point begin = Clock::now();
    const ReadArgs args{own.data(), static_cast<int64_t>(own.bytes()), region.streams};
    for (int pass = 0; pass < region.passes; ++pass) region.kernel.run(args);
    worker.barrier->wait();
    if (worker.index == 0) {
      region.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    }
  }
};

}  // namespace

ReadBandwidth::ReadBandwidth(WorkerPool& pool, const Topology& topology, int64_t bytes)
    : pool_(pool) {
  require(bytes >= kLeastBytes, ErrorCode::invalid_argument,
          "read bandwidth: expected at least {} bytes, found {}", kLeastBytes, bytes);
  share_ = round_up(ceil_div(bytes, pool.count()), 4096);
  for (size_t i = 0; i < static_cast<size_t>(pool.count()); ++i) {
    buffers_.emplace_back(static_cast<size_t>(share_),
                          PlacementOptions{true, &topology, topology.workers()[i]});
  }
  FillRegion fill{&buffers_};
  pool.drive([&] { pool.run(FillRegion::run, &fill); });
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < 2; ++round) {
    for (const int streams : {4, 8, 2, 1}) {
      const double took = seconds(streams, 1);
      if (took >= best) continue;
      best = took;
      streams_ = streams;
    }
  }
  passes_ = std::clamp(static_cast<int>(std::lround(kSeconds / best)), 1, 1000);
}

double ReadBandwidth::seconds(int streams, int passes) {
  ReadRegion region{&buffers_, best_read_kernel(), streams, passes};
  pool_.drive([&] { pool_.run(ReadRegion::run, &region); });
  return region.seconds;
}

double ReadBandwidth::measure() {
  return static_cast<double>(bytes()) * passes_ / seconds(streams_, passes_) / 1e9;
}

double measure_read_gbps(WorkerPool& pool, const Topology& topology, int64_t bytes) {
  return ReadBandwidth(pool, topology, bytes).measure();
}

}  // namespace qllm::cpu
