#include <algorithm>

#include "core/error.h"
#include "core/math.h"
#include "ops/ops.h"
#include "quant/packing.h"

namespace qllm::cpu {
namespace {

/// What a tile [rows, columns] holds between the kernel and the end of its epilogue stays in a
/// core's L2: 128 KiB, a quarter of the smallest L2 in use (512 KiB), the rest is weights and x.
constexpr int64_t kTileBytes = 128 * 1024;

/// Bytes of a tile's element: an int32 sum, and the float that becomes of it where SwiGLU waits.
int64_t element_bytes(const LinearStepArgs& args) { return args.swiglu != nullptr ? 8 : 4; }

/// Columns that must not be parted: gate and up lie in blocks of 64 by turns.
int64_t column_unit(const LinearStepArgs& args) {
  return args.swiglu != nullptr ? 2 * kBlockN : kBlockN;
}

int64_t tile_columns(const LinearStepArgs& args, int64_t rows) {
  const int64_t unit = column_unit(args);
  return std::max(unit, kTileBytes / element_bytes(args) / rows / unit * unit);
}

/// The most elements that a tile of this linear can have, over all row counts.
int64_t tile_count(const LinearStepArgs& args, const Shard& shard) {
  int64_t most = column_unit(args);
  for (int64_t m = 1; m <= args.max_rows; m *= 2) {
    const int64_t rows = std::min(2 * m, args.max_rows);
    most = std::max(most, rows * std::min(shard.n, tile_columns(args, m)));
  }
  if (args.onednn != nullptr) {
    most = std::max(most, args.max_rows * std::min(shard.n, kOnednnColumns));
  }
  return most;
}

/// Columns [n, n+count) of a shard, for all rows of the step.
struct Tile {
  int64_t n;
  int64_t count;
  int64_t rows;
  int32_t* acc;   // [rows, count]
  float* values;  // [rows, count]; SwiGLU only
};

class LinearStep final : public Step {
 public:
  LinearStep(const LinearStepArgs& args, Scratch& scratch) : a_(args), scratch_(scratch) {
    for (const Shard& shard : args.weights->shards) {
      require(shard.n0 % column_unit(args) == 0 && shard.n % column_unit(args) == 0,
              ErrorCode::invalid_argument, "cpu: shards of a linear part what is fused with it");
      most_ = std::max(most_, tile_count(args, shard));
      if (args.onednn != nullptr) args.onednn->prepare(shard.n, shard.k_padded, args.in.shared.ld);
    }
    scratch.reserve(static_cast<size_t>(most_ * element_bytes(args)));
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const Shard& shard = a_.weights->shards[static_cast<size_t>(worker.index)];
    const int64_t rows = state.rows(a_.in.rows);
    if (rows == 0 || shard.n == 0) return;
    const bool onednn = use_onednn(rows);
    const int64_t columns = std::min(shard.n, onednn ? kOnednnColumns : tile_columns(a_, rows));
    const DotKernel& kernel = select_dot_kernel(a_.isa, rows);
    const QuantRows x = a_.in.view(rows, worker);
    auto* acc = scratch_.of<int32_t>(worker.index);
    for (int64_t n = 0; n < shard.n; n += columns) {
      const Tile tile{n, std::min(columns, shard.n - n), rows, acc,
                      reinterpret_cast<float*>(acc + most_)};
      const DotArgs dot = dot_args(shard, tile, x);
      if (!onednn || !a_.onednn->run(dot, worker.index)) kernel.run(dot);
      finish(shard, tile, x);
    }
  }
  bool meets(const StepState&) const override { return a_.meets; }

 private:
  /// It computes whole row counts it is prepared for; the buffers hold max_rows.
  bool use_onednn(int64_t rows) const {
    return a_.onednn != nullptr && rows >= kOnednnMinTokens &&
           a_.onednn->padded_rows(rows) <= a_.max_rows;
  }

  DotArgs dot_args(const Shard& shard, const Tile& tile, const QuantRows& x) const {
    DotArgs d;
    d.x = x.data;
    d.w = shard.w + tile.n * shard.k_padded;
    d.acc = tile.acc;
    d.m = tile.rows;
    d.n = tile.count;
    d.k = shard.k_padded;
    d.ldx = x.ld;
    d.ldacc = tile.count;
    return d;
  }

  void finish(const Shard& shard, const Tile& tile, const QuantRows& x) const noexcept {
    EpilogueArgs e;
    const int64_t column = shard.n0 + tile.n;
    e.acc = tile.acc;
    e.w_sum = shard.sum + tile.n;
    e.w_scale = shard.scale + tile.n;
    e.x_scale = x.scale;
    e.bias = a_.bias != nullptr ? a_.bias + column : nullptr;
    e.m = tile.rows;
    e.n = tile.count;
    e.ldacc = tile.count;
    if (a_.swiglu == nullptr) {
      e.residual = a_.residual.data != nullptr ? a_.residual.data + column : nullptr;
      e.ldres = a_.residual.ld;
      e.y = a_.out.data + column;
      e.ldy = a_.out.ld;
      return a_.vec->epilogue(e);
    }
    e.y = tile.values;
    e.ldy = tile.count;
    a_.vec->epilogue(e);
    swiglu(tile, column / 2);
  }

  /// Columns [column, …) of out, half as many as the tile has.
  void swiglu(const Tile& tile, int64_t column) const noexcept {
    const int64_t count = std::min(tile.count / 2, a_.out.width - column);
    for (int64_t r = 0; r < tile.rows && count > 0; ++r) {
      float* out = a_.out.row(r) + column;
      a_.vec->swiglu(tile.values + r * tile.count, count, out);
      if (a_.swiglu->hadamard != 0) a_.vec->hadamard64(out, count);
    }
  }

  LinearStepArgs a_;
  Scratch& scratch_;  // one tile
  int64_t most_ = 0;  // its most elements
};

}  // namespace

std::unique_ptr<Step> make_linear(const LinearStepArgs& args, Scratch& scratch) {
  return std::make_unique<LinearStep>(args, scratch);
}

}  // namespace qllm::cpu
