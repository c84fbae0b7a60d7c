#include "kernel_rate.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/group_dot.h"
#include "placed_memory.h"
#include "quant/packing.h"

namespace qllm::cpu {
namespace {

using Clock = std::chrono::steady_clock;

// A kernel takes four block columns by turns, and 1024 inputs are long against what it does once a
// tile. 256 KiB of int8 are half of the smallest L2 in question (Zen 3's 512 KiB).
constexpr int64_t kOutputs = 256;
constexpr int64_t kInputs = 1024;
constexpr int64_t kMostTokens = 4096;
constexpr double kSeconds = 0.020;  // as long as a bandwidth is read: what stands side by side
constexpr int kGroupByte = 0x2c;    // as f16 scales 0.065: no denormals

/// What one worker computes with, in its own memory.
class Operands {
 public:
  Operands(const WeightFormat& format, int64_t tokens)
      : format_(format),
        tokens_(tokens),
        k_(in_groups() ? format.groups.padded_k(kInputs) : kInputs),
        groups_(in_groups() ? k_ / format.groups.group : 1),
        x_(static_cast<size_t>(tokens * k_), {}),
        w_(static_cast<size_t>(weight_bytes()), {}),
        out_(static_cast<size_t>(tokens * kOutputs) * sizeof(int32_t), {}),
        scales_(static_cast<size_t>(tokens * groups_), 0.01F),
        sums_(static_cast<size_t>(tokens * groups_), 1) {
    // As a row of normal values is that its largest scales: behind a norm, and weights. A kernel
    // may lean on it (dot_u8s8s32_bytes_avx2).
    uint64_t state = 1;
    auto* x = x_.as<uint8_t>();
    for (size_t i = 0; i < x_.bytes(); ++i) x[i] = bell(&state, in_groups() ? 0 : 128);
    auto* w = w_.as<uint8_t>();
    if (in_groups()) {
      std::memset(w, kGroupByte, w_.bytes());
    } else {
      for (size_t i = 0; i < w_.bytes(); ++i) w[i] = bell(&state, 0);
    }
  }

  bool in_groups() const { return format_.kind == WeightFormat::Kind::groups; }

  void compute(const DotKernel& rows, const GroupDotKernel& groups) const noexcept {
    if (in_groups()) {
      compute_groups(groups);
    } else {
      compute_rows(rows);
    }
  }

 private:
  int64_t weight_bytes() const {
    if (!in_groups()) return kOutputs * kInputs;
    return kOutputs / kBlockN * format_.groups.column_bytes(k_);
  }

  /// Four random bytes: of mean `zero`, standard deviation 37, at most 127 from it.
  static uint8_t bell(uint64_t* state, int zero) {
    *state = *state * 6364136223846793005U + 1442695040888963407U;  // Knuth's MMIX generator
    const auto bits = static_cast<uint32_t>(*state >> 32U);
    const uint32_t sum = (bits & 255U) + (bits >> 8U & 255U) + (bits >> 16U & 255U) + (bits >> 24U);
    return static_cast<uint8_t>(static_cast<int>(sum / 4) - 127 + zero);
  }

  void compute_rows(const DotKernel& kernel) const noexcept {
    DotArgs d;
    d.x = x_.as<uint8_t>();
    d.w = w_.as<int8_t>();
    d.acc = out_.as<int32_t>();
    d.m = tokens_;
    d.n = kOutputs;
    d.k = d.ldx = k_;
    d.ldacc = kOutputs;
    kernel.run(d);
  }

  void compute_groups(const GroupDotKernel& kernel) const noexcept {
    GroupDotArgs d;
    d.format = format_.groups;
    d.x = x_.as<int8_t>();
    d.x_scale = scales_.data();
    d.x_sum = sums_.data();
    d.w = w_.as<std::byte>();
    d.y = out_.as<float>();
    d.m = tokens_;
    d.n = kOutputs;
    d.k = d.ldx = k_;
    d.ldg = groups_;
    d.ldy = kOutputs;
    kernel.run(d);
  }

  WeightFormat format_;
  int64_t tokens_;
  int64_t k_;
  int64_t groups_;
  PlacedBuffer x_, w_, out_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
};

struct RateRegion {
  const std::vector<Operands>* operands;
  const DotKernel& rows;
  const GroupDotKernel& groups;
  int64_t rounds;
  double seconds = 0;  // between the barriers, by worker 0

  static void run(void* context, const Worker& worker) noexcept {
    auto& region = *static_cast<RateRegion*>(context);
    const Operands& own = (*region.operands)[static_cast<size_t>(worker.index)];
    own.compute(region.rows, region.groups);  // into the cache
    worker.barrier->wait();
    const Clock::time_point begin = Clock::now();
    for (int64_t i = 0; i < region.rounds; ++i) own.compute(region.rows, region.groups);
    worker.barrier->wait();
    if (worker.index == 0) {
      region.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    }
  }
};

}  // namespace

double measure_kernel_tops(WorkerPool& pool, Isa isa, bool onednn, const WeightFormat& format,
                           int64_t tokens) {
  if (format.kind == WeightFormat::Kind::f32 || tokens < 1 || tokens > kMostTokens) return 0;
  // Of a large matrix: the table may tell small ones apart.
  const DotChoice choice = choose_dot(isa, tokens, 4096, 4096, onednn);
  if (format.kind == WeightFormat::Kind::row_int8 && choice.onednn) return 0;
  std::vector<Operands> operands;
  for (int i = 0; i < pool.count(); ++i) operands.emplace_back(format, tokens);
  RateRegion region{&operands, *choice.kernel, select_group_dot_kernel(isa, tokens), 1};
  pool.drive([&] {
    pool.run(RateRegion::run, &region);
    region.rounds = std::max<int64_t>(
        1, static_cast<int64_t>(kSeconds / std::max(region.seconds, kSeconds / 1e6)));
    pool.run(RateRegion::run, &region);
  });
  const double ops = 2.0 * static_cast<double>(tokens * kOutputs * kInputs) * pool.count();
  return ops * static_cast<double>(region.rounds) / region.seconds / 1e12;
}

}  // namespace qllm::cpu
