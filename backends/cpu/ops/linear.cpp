#include <algorithm>

#include "core/math.h"
#include "ops/ops.h"
#include "quant/packing.h"

namespace qllm::cpu {
namespace {

/// int32 sums of a tile [rows, columns] that stay in a core's L2 between the kernel and the
/// epilogue: 128 KiB, a quarter of the smallest L2 in use (512 KiB), the rest is weights and x.
constexpr int64_t kAccBytes = 128 * 1024;

int64_t tile_columns(int64_t rows) {
  const int64_t columns = kAccBytes / static_cast<int64_t>(sizeof(int32_t)) / rows;
  return std::max(kBlockN, columns / kBlockN * kBlockN);
}

/// The most sums that a tile of this linear can have, over all row counts.
int64_t scratch_count(const LinearStepArgs& args, const Shard& shard) {
  int64_t most = kBlockN;
  for (int64_t m = 1; m <= args.max_rows; m *= 2) {
    const int64_t rows = std::min(2 * m, args.max_rows);
    most = std::max(most, rows * std::min(shard.n, tile_columns(m)));
  }
  if (args.onednn != nullptr) {
    most = std::max(most, args.max_rows * std::min(shard.n, kOnednnColumns));
  }
  return most;
}

class LinearStep final : public Step {
 public:
  LinearStep(const LinearStepArgs& args, Scratch& scratch) : a_(args), scratch_(scratch) {
    for (const Shard& shard : args.weights->shards) {
      scratch.reserve(static_cast<size_t>(scratch_count(args, shard)) * sizeof(int32_t));
      if (args.onednn != nullptr) args.onednn->prepare(shard.n, shard.k_padded, args.in.ld);
    }
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const Shard& shard = a_.weights->shards[static_cast<size_t>(worker.index)];
    const int64_t rows = state.rows(a_.in.rows);
    if (rows == 0 || shard.n == 0) return;
    const bool onednn = use_onednn(rows);
    const int64_t columns = std::min(shard.n, onednn ? kOnednnColumns : tile_columns(rows));
    const DotKernel& kernel = select_dot_kernel(a_.isa, rows);
    int32_t* acc = scratch_.of<int32_t>(worker.index);
    for (int64_t n = 0; n < shard.n; n += columns) {
      const int64_t count = std::min(columns, shard.n - n);
      const DotArgs dot = dot_args(shard, n, count, rows, acc);
      if (!onednn || !a_.onednn->run(dot, worker.index)) kernel.run(dot);
      a_.vec->epilogue(epilogue_args(shard, n, count, rows, acc));
    }
  }

 private:
  /// It computes whole row counts it is prepared for; the buffers hold max_rows.
  bool use_onednn(int64_t rows) const {
    return a_.onednn != nullptr && rows >= kOnednnMinTokens &&
           a_.onednn->padded_rows(rows) <= a_.max_rows;
  }

  DotArgs dot_args(const Shard& shard, int64_t n, int64_t count, int64_t rows, int32_t* acc) const {
    DotArgs d;
    d.x = a_.in.data;
    d.w = shard.w + n * shard.k_padded;
    d.acc = acc;
    d.m = rows;
    d.n = count;
    d.k = shard.k_padded;
    d.ldx = a_.in.ld;
    d.ldacc = count;
    return d;
  }

  EpilogueArgs epilogue_args(const Shard& shard, int64_t n, int64_t count, int64_t rows,
                             const int32_t* acc) const {
    EpilogueArgs e;
    const int64_t column = shard.n0 + n;
    e.acc = acc;
    e.w_sum = shard.sum + n;
    e.w_scale = shard.scale + n;
    e.x_scale = a_.in.scale;
    e.bias = a_.bias != nullptr ? a_.bias + column : nullptr;
    e.residual = a_.residual.data != nullptr ? a_.residual.data + column : nullptr;
    e.y = a_.out.data + column;
    e.m = rows;
    e.n = count;
    e.ldacc = count;
    e.ldres = a_.residual.ld;
    e.ldy = a_.out.ld;
    return e;
  }

  LinearStepArgs a_;
  Scratch& scratch_;  // the sums of one tile
};

}  // namespace

std::unique_ptr<Step> make_linear(const LinearStepArgs& args, Scratch& scratch) {
  return std::make_unique<LinearStep>(args, scratch);
}

}  // namespace qllm::cpu
