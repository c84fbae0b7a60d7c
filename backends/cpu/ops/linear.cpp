#include <algorithm>

#include "core/error.h"
#include "core/math.h"
#include "kernels/dispatch.h"
#include "kernels/group_dot.h"
#include "ops/ops.h"
#include "quant/packing.h"

namespace qllm::cpu {
namespace {

/// Bytes of a tile's element: an int32 sum, and the float that becomes of it where SwiGLU waits.
int64_t element_bytes(const LinearStepArgs& args) { return args.swiglu != nullptr ? 8 : 4; }

/// Columns that must not be parted: gate and up lie in blocks of 64 by turns.
int64_t column_unit(const LinearStepArgs& args) {
  return args.swiglu != nullptr ? 2 * kBlockN : kBlockN;
}

/// What a tile [rows, columns] holds between the kernel and the end of its epilogue stays in a
/// core's L2: sum_bytes, of which the table of dispatch.h says how many suit the kernel.
int64_t tile_columns(const LinearStepArgs& args, int64_t rows, int64_t sum_bytes) {
  const int64_t unit = column_unit(args);
  return std::max(unit, sum_bytes / element_bytes(args) / rows / unit * unit);
}

/// The most elements that a tile of this linear can have, over all row counts.
int64_t tile_count(const LinearStepArgs& args, const Shard& shard) {
  const int64_t by_bytes = most_sum_bytes(args.isa) / element_bytes(args);
  int64_t most =
      std::min(args.max_rows * shard.n, std::max(args.max_rows * column_unit(args), by_bytes));
  if (args.onednn != nullptr) {
    most = std::max(most, args.max_rows * std::min(shard.n, kOnednnColumns));
  }
  return most;
}

/// Columns [n, n+count) of a linear, for all rows of the step.
struct Tile {
  int64_t n;
  int64_t count;
  int64_t rows;
  int32_t* acc;   // [rows, count]: sums, or floats of weights in groups
  float* values;  // [rows, count]; SwiGLU only

  int64_t end() const { return n + count; }
};

class LinearStep final : public Step {
 public:
  LinearStep(const LinearStepArgs& args, Scratch& scratch) : a_(args), scratch_(scratch) {
    if (!onednn_can(args)) a_.onednn = nullptr;
    for (const Shard& shard : args.weights->shards) {
      require(shard.n0 % column_unit(args) == 0 && shard.n % column_unit(args) == 0,
              ErrorCode::invalid_argument, "cpu: shards of a linear part what is fused with it");
      most_ = std::max(most_, tile_count(a_, shard));
      if (a_.onednn != nullptr) {
        a_.onednn->prepare(shard.n, args.weights->k_padded, args.in.shared.ld);
      }
    }
    scratch.reserve(static_cast<size_t>(most_ * element_bytes(args)));
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const Shard& shard = a_.weights->shards[static_cast<size_t>(worker.index)];
    const int64_t rows = state.rows(a_.in.rows);
    if (rows == 0 || shard.n == 0) return;
    const DotChoice choice =
        choose_dot(a_.isa, rows, shard.n, a_.weights->k_padded, fits_onednn(rows));
    const int64_t columns = std::min(
        shard.n, choice.onednn ? kOnednnColumns : tile_columns(a_, rows, choice.sum_bytes));
    const QuantRows x = a_.in.view(rows, worker);
    auto* acc = scratch_.of<int32_t>(worker.index);
    size_t piece = 0;  // that holds the tile's first column
    for (int64_t n = 0; n < shard.n; n += columns) {
      const Tile tile{shard.n0 + n, std::min(columns, shard.n - n), rows, acc,
                      reinterpret_cast<float*>(acc + most_)};
      while (shard.pieces[piece].end() <= tile.n) ++piece;
      for (size_t p = piece; p < shard.pieces.size() && shard.pieces[p].n0 < tile.end(); ++p) {
        compute(shard.pieces[p], tile, x, choice, worker.index);
      }
      for (const Piece& second : shard.second_terms) {
        if (second.n0 >= tile.end() || second.end() <= tile.n) continue;
        compute_rows(second, adding(part_of(second, tile)), x, choice, worker.index);
      }
      if (a_.swiglu != nullptr) swiglu(tile);
    }
  }
  bool meets(const StepState&) const override { return a_.meets; }

 private:
  static bool onednn_can(const LinearStepArgs& args) {
    if (args.onednn == nullptr) return false;
    for (const Shard& shard : args.weights->shards) {
      for (const Piece& piece : shard.pieces) {
        if (piece.in_groups()) return false;
      }
    }
    return true;
  }

  /// It computes whole row counts it is prepared for; the buffers hold max_rows.
  bool fits_onednn(int64_t rows) const {
    return a_.onednn != nullptr && a_.onednn->padded_rows(rows) <= a_.max_rows;
  }

  /// Columns that a tile and a piece share, and where their results go.
  struct Part {
    int64_t n;  // of the linear
    int64_t count;
    int64_t rows;
    int32_t* acc;  // [rows, ldacc]
    int64_t ldacc;
    const float* bias;
    const float* residual;
    int64_t ldres;
    float* y;
    int64_t ldy;
  };

  Part part_of(const Piece& piece, const Tile& tile) const {
    Part p{};
    p.n = std::max(piece.n0, tile.n);
    p.count = std::min(piece.end(), tile.end()) - p.n;
    p.rows = tile.rows;
    p.acc = tile.acc + (p.n - tile.n);
    p.ldacc = tile.count;
    p.bias = a_.bias != nullptr ? a_.bias + p.n : nullptr;
    const bool has_residual = a_.residual.data != nullptr && a_.swiglu == nullptr;
    p.residual = has_residual ? a_.residual.data + p.n : nullptr;
    p.ldres = a_.residual.ld;
    p.y = a_.swiglu != nullptr ? tile.values + (p.n - tile.n) : a_.out.data + p.n;
    p.ldy = a_.swiglu != nullptr ? tile.count : a_.out.ld;
    return p;
  }

  void compute(const Piece& piece, const Tile& tile, const QuantRows& x, const DotChoice& choice,
               int worker) const noexcept {
    const Part part = part_of(piece, tile);
    if (piece.in_groups()) return compute_groups(piece, part, x);
    compute_rows(piece, part, x, choice, worker);
  }

  /// A second term adds to what the first made.
  static Part adding(Part part) {
    part.bias = nullptr;
    part.residual = part.y;
    part.ldres = part.ldy;
    return part;
  }

  void compute_rows(const Piece& piece, const Part& part, const QuantRows& x,
                    const DotChoice& choice, int worker) const noexcept {
    const int64_t at = part.n - piece.n0;
    DotArgs d;
    d.x = x.data;
    d.w = reinterpret_cast<const int8_t*>(piece.w) + at * piece.k_padded;
    d.acc = part.acc;
    d.m = part.rows;
    d.n = part.count;
    d.k = piece.k_padded;
    d.ldx = x.ld;
    d.ldacc = part.ldacc;
    if (!choice.onednn || !a_.onednn->run(d, worker)) choice.kernel->run(d);
    EpilogueArgs e;
    e.acc = part.acc;
    e.w_sum = piece.sum + at;
    e.w_scale = piece.scale + at;
    e.x_scale = x.scale;
    e.bias = part.bias;
    e.residual = part.residual;
    e.y = part.y;
    e.m = part.rows;
    e.n = part.count;
    e.ldacc = part.ldacc;
    e.ldres = part.ldres;
    e.ldy = part.ldy;
    a_.vec->epilogue(e);
  }

  void compute_groups(const Piece& piece, const Part& part, const QuantRows& x) const noexcept {
    const GroupFormat& format = piece.format.groups;
    const int64_t columns = (part.n - piece.n0) / kBlockN;
    GroupDotArgs d;
    d.format = format;
    d.x = reinterpret_cast<const int8_t*>(x.data);
    d.x_scale = x.scale;
    d.x_sum = x.sum;
    d.w = piece.w + columns * format.column_bytes(piece.k_padded);
    d.y = reinterpret_cast<float*>(part.acc);
    d.m = part.rows;
    d.n = part.count;
    d.k = piece.k_padded;
    d.ldx = x.ld;
    d.ldg = x.ldg();
    d.ldy = part.ldacc;
    select_group_dot_kernel(a_.isa, d.m).run(d);
    a_.vec->add({d.y, part.bias, part.residual, part.y, d.m, d.n, d.ldy, part.ldres, part.ldy});
  }

  /// Half as many columns of out as the tile has.
  void swiglu(const Tile& tile) const noexcept {
    const int64_t column = tile.n / 2;
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
