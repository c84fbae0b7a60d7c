// Small M on AMX-INT8: up to 16 tokens are one tile of x, and every line of the weights is loaded
// once, in place: 16 lines 256 bytes apart are a tile of 64 inputs x 16 outputs.
//
// A tdpbusd takes 16 cycles for 1 KiB of weights whatever M is up to 16 (Intel's optimization
// manual, chapter on AMX), three to five times the speed of memory for a core, so the order of the
// reads decides: kStreams block columns by turns, a piece of kPieceSteps each, and while one piece
// is multiplied the next one in turn is prefetched front to back, 16 lines a tile. A tile by itself
// would ask for every fourth line. Reasoned from AVX2, where four streams were measured best; not
// measured on a machine with AMX.
#include "kernels/amx/tiles.h"
#include "kernels/dot.h"
#include "kernels/intrin.h"
#include "kernels/turns.h"

namespace qllm::cpu::amx {
namespace {

constexpr int64_t kOutputs = 64;  // of a block: four tiles of sums
constexpr int64_t kRun = 256;     // bytes: 64 outputs x 4 inputs
constexpr int64_t kStep = 64;     // inputs of a tile of x
constexpr int64_t kStepBytes = kStep * kOutputs;
constexpr int64_t kPieceSteps = 4;  // 16 KiB: this piece and the next one fit in a 48 KiB L1
constexpr int64_t kMaxRows = 16;    // tokens of a tile

// Tiles 0 to 3 hold sums, 4 holds x, 5 to 7 weights.
constexpr int kX = 4;
constexpr int kFirstW = 5;

TileConfig config_for(int64_t rows) {
  TileConfig config;
  for (int i = 0; i <= kX; ++i) config.set_rows(i, rows);
  for (int i = kFirstW; i < 8; ++i) config.set_rows(i, 16);
  return config;
}

/// One tile of weights, 16 outputs, while the 16 lines at `ahead` are on their way.
template <int kTile>
inline void multiply(const int8_t* w, const int8_t* ahead) {
  constexpr int kW = kFirstW + kTile % 3;
  load_tile<kW>(w + 64 * kTile, kRun);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead + 1024 * kTile + 64 * i), _MM_HINT_T0);
  }
  dot_u8s8<kTile, kX, kW>();
}

struct Piece {
  const uint8_t* x;
  const int8_t* w;
  int32_t* acc;
  int64_t steps;
  bool first;  // of its block column: the sums begin at 0
};

/// acc[rows][64] (+)= x . w over a piece.
inline void visit(const Piece& piece, int64_t ldx, int64_t ldacc, const int8_t* ahead) {
  const int64_t acc_stride = ldacc * static_cast<int64_t>(sizeof(int32_t));
  if (piece.first) {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
  } else {
    load_tile<0>(piece.acc, acc_stride);
    load_tile<1>(piece.acc + 16, acc_stride);
    load_tile<2>(piece.acc + 32, acc_stride);
    load_tile<3>(piece.acc + 48, acc_stride);
  }
  for (int64_t s = 0; s < piece.steps; ++s) {
    const int8_t* w = piece.w + s * kStepBytes;
    const int8_t* next = ahead + s * kStepBytes;
    load_tile<kX>(piece.x + s * kStep, ldx);
    multiply<0>(w, next);
    multiply<1>(w, next);
    multiply<2>(w, next);
    multiply<3>(w, next);
  }
  store_tile<0>(piece.acc, acc_stride);
  store_tile<1>(piece.acc + 16, acc_stride);
  store_tile<2>(piece.acc + 32, acc_stride);
  store_tile<3>(piece.acc + 48, acc_stride);
}

/// Block columns [first, last), a piece of each by turns.
inline void run_turn(const DotArgs& args, int64_t first, int64_t last) {
  const Turns turns = {args, kPieceSteps * kStep, first, last};
  int64_t i = 0;
  for (int64_t k = 0; k < args.k; k += turns.depth) {
    const int64_t inputs = args.k - k < turns.depth ? args.k - k : turns.depth;
    for (int64_t c = first; c < last; ++c, ++i) {
      const Piece piece = {args.x + k, turns.weights(c, k), args.acc + c * kOutputs, inputs / kStep,
                           k == 0};
      visit(piece, args.ldx, args.ldacc, turns.piece(i + 1));
    }
  }
}

/// Up to 16 tokens.
void run_rows(const DotArgs& args) {
  const TileConfig config = config_for(args.m);
  load_config(config);
  by_turns(args, kStreams, [&](int64_t first, int64_t last) { run_turn(args, first, last); });
  release_tiles();
}

}  // namespace

void dot_u8s8s32_n64k4_stream(const DotArgs& args) noexcept {
  for (int64_t m = 0; m < args.m; m += kMaxRows) {
    DotArgs rows = args;
    rows.x += m * args.ldx;
    rows.acc += m * args.ldacc;
    rows.m = args.m - m < kMaxRows ? args.m - m : kMaxRows;
    run_rows(rows);
  }
}

}  // namespace qllm::cpu::amx
