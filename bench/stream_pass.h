// One timed pass over memory by all workers of a pool.
#pragma once

#include <chrono>
#include <cstring>
#include <vector>

#include "stream_plan.h"
#include "worker_pool.h"

namespace qllm::bench {

/// What one worker reads, or what its three arrays are cut from; null: it stays idle.
struct Lane {
  char* data = nullptr;
  int64_t bytes = 0;
};

inline const cpu::ReadKernel* find_read_kernel(int width) {
  for (const cpu::ReadKernel& k : cpu::read_kernels()) {
    if (k.width == width && cpu::isa_available(k.isa)) return &k;
  }
  return nullptr;
}

inline const cpu::MoveKernel& widest_move_kernel() {
  const cpu::MoveKernel* best = cpu::move_kernels().data();
  for (const cpu::MoveKernel& k : cpu::move_kernels()) {
    if (cpu::isa_available(k.isa)) best = &k;
  }
  return *best;
}

class Pass {
 public:
  Pass(const std::vector<Lane>& lanes, const MemoryOp& op, const ReadVariant& variant)
      : lanes_(lanes), op_(op), variant_(variant), read_(*find_read_kernel(variant.width)) {}

  /// GB/s (1e9) over the bus, as MemoryOp counts it.
  double gbps(cpu::WorkerPool& pool) {
    pool.drive([&] { pool.run(run, this); });
    double bytes = 0;
    for (const Lane& lane : lanes_) {
      if (lane.data == nullptr) continue;
      bytes += static_cast<double>(op_.is_read ? lane.bytes : array_bytes(lane)) * op_.transfers;
    }
    return bytes / seconds_ / 1e9;
  }

  /// Each worker touches its own lane first; not zero, or one page could answer for all.
  static void fill(cpu::WorkerPool& pool, std::vector<Lane>& lanes) {
    pool.drive([&] { pool.run(fill_own, &lanes); });
  }

 private:
  // The arrays lie 1 KiB apart in their pages: where loads and stores share the low 12 bits of
  // their addresses, processors take them for dependent.
  static constexpr int64_t kSkew = 1024;
  static int64_t array_bytes(const Lane& lane) {
    return (lane.bytes / 3 - 3 * kSkew) / 4096 * 4096;
  }
  static float* array(const Lane& lane, int i) {
    return reinterpret_cast<float*>(lane.data + lane.bytes / 3 / 4096 * 4096 * i + kSkew * i);
  }

  static void fill_own(void* context, const cpu::Worker& worker) noexcept {
    const Lane& own =
        (*static_cast<std::vector<Lane>*>(context))[static_cast<size_t>(worker.index)];
    if (own.data != nullptr) std::memset(own.data, 1, static_cast<size_t>(own.bytes));
  }

  void work(const Lane& own) {
    if (own.data == nullptr) return;
    if (op_.is_read) {
      read_.run({own.data, own.bytes, variant_.streams, variant_.prefetch, variant_.ahead});
      return;
    }
    const cpu::MoveArgs args{array(own, 0), array(own, 1), array(own, 2), array_bytes(own),
                             op_.non_temporal};
    const cpu::MoveKernel& kernel = widest_move_kernel();
    op_.is_triad ? kernel.triad(args) : kernel.copy(args);
  }

  static void run(void* context, const cpu::Worker& worker) noexcept {
    auto& self = *static_cast<Pass*>(context);
    worker.barrier->wait();
    const auto begin = std::chrono::steady_clock::now();
    self.work(self.lanes_[static_cast<size_t>(worker.index)]);
    worker.barrier->wait();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (worker.index == 0) self.seconds_ = took.count();
  }

  const std::vector<Lane>& lanes_;  // [workers]
  const MemoryOp& op_;
  ReadVariant variant_;
  const cpu::ReadKernel& read_;
  double seconds_ = 0;
};

}  // namespace qllm::bench
