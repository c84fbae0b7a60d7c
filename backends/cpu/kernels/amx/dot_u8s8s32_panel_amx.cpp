// Large M on AMX-INT8: blocks of 32 tokens x 32 outputs, 2 x 2 tiles of sums, so that four tile
// loads (8 cycles each at best) stand against four tdpbusd (16 cycles each).
//
// A panel of weights, 64 outputs x kPanelSteps * 64 inputs (24 KiB), lies in L1 while all tokens
// pass; their x over the same inputs (at most 512 x 384: 192 KiB) and the sums of the call stay in
// L2 until the next panel. Per block and step L1 is filled with 1 KiB of x twice as seldom as it is
// used, because both halves of the panel take it. Chosen for L1 48 KiB, L2 2 MiB; reasoned, not
// measured: the machine that it was written on has no AMX.
//
// Rows of x that lie a multiple of 4 KiB apart share one set of L1; ldx an odd multiple of 64 is
// better.
#include "kernels/amx/tiles.h"
#include "kernels/dot.h"
#include "kernels/intrin.h"

namespace qllm::cpu::amx {
namespace {

constexpr int64_t kOutputs = 64;  // of a block column: two blocks
constexpr int64_t kRun = 256;     // bytes: 64 outputs x 4 inputs
constexpr int64_t kStep = 64;     // inputs of a tile of x
constexpr int64_t kStepBytes = kStep * kOutputs;
constexpr int64_t kPanelSteps = 6;
constexpr int64_t kTile = 16;      // tokens, and outputs
constexpr int64_t kBlock = 32;     // tokens
constexpr int64_t kMaxRows = 512;  // tokens that pass before the weights are read again
constexpr int64_t kSum = sizeof(int32_t);

/// Sums 0 1 (tokens 0 to 15) and 2 3 (16 on), x 4 and 5, weights 6 and 7. Of the last rows, fewer
/// than 32, up to 16 take all four tiles of sums for 64 outputs.
TileConfig config_for(int64_t rows) {
  TileConfig config;
  const int64_t top = rows < kTile ? rows : kTile;
  const int64_t low = rows <= kTile ? top : rows - kTile;
  for (const int i : {0, 1, 4}) config.set_rows(i, top);
  for (const int i : {2, 3, 5}) config.set_rows(i, low);
  for (const int i : {6, 7}) config.set_rows(i, kTile);
  return config;
}

struct Panel {
  const uint8_t* x;  // [rows, ldx], from the panel's first input
  int64_t ldx;
  const int8_t* w;  // [steps][4096]
  int64_t steps;
  int32_t* acc;  // [rows, ldacc], from the panel's first output
  int64_t ldacc;
  bool first;  // the sums begin at 0
};

/// The four tiles of sums of a block: two beside each other, two below them, or all in a row.
inline void begin(const Panel& p, int32_t* left, int32_t* right) {
  if (p.first) {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    return;
  }
  load_tile<0>(left, p.ldacc * kSum);
  load_tile<1>(left + kTile, p.ldacc * kSum);
  load_tile<2>(right, p.ldacc * kSum);
  load_tile<3>(right + kTile, p.ldacc * kSum);
}

inline void end(const Panel& p, int32_t* left, int32_t* right) {
  store_tile<0>(left, p.ldacc * kSum);
  store_tile<1>(left + kTile, p.ldacc * kSum);
  store_tile<2>(right, p.ldacc * kSum);
  store_tile<3>(right + kTile, p.ldacc * kSum);
}

/// 17 to 32 tokens from row m x the panel's outputs [n, n + 32). Brings x of the next block, at
/// `x_ahead`, from L2 meanwhile.
template <bool kPrefetch>
inline void block(const Panel& p, int64_t m, int64_t n, const uint8_t* x_ahead) {
  const uint8_t* x = p.x + m * p.ldx;
  const int8_t* w = p.w + n * 4;
  int32_t* acc = p.acc + m * p.ldacc + n;
  begin(p, acc, acc + kTile * p.ldacc);
  for (int64_t s = 0; s < p.steps; ++s) {
    load_tile<4>(x + s * kStep, p.ldx);
    load_tile<6>(w + s * kStepBytes, kRun);
    dot_u8s8<0, 4, 6>();
    load_tile<7>(w + s * kStepBytes + 64, kRun);
    dot_u8s8<1, 4, 7>();
    load_tile<5>(x + kTile * p.ldx + s * kStep, p.ldx);
    dot_u8s8<2, 5, 6>();
    dot_u8s8<3, 5, 7>();
    if constexpr (kPrefetch) {
      const uint8_t* ahead = x_ahead + s * kStep;
      for (int64_t r = 0; r < kBlock; ++r, ahead += p.ldx) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
      }
    }
  }
  end(p, acc, acc + kTile * p.ldacc);
}

/// Up to 16 tokens from row m x all 64 outputs.
inline void narrow_block(const Panel& p, int64_t m) {
  const uint8_t* x = p.x + m * p.ldx;
  int32_t* acc = p.acc + m * p.ldacc;
  begin(p, acc, acc + 2 * kTile);
  for (int64_t s = 0; s < p.steps; ++s) {
    const int8_t* w = p.w + s * kStepBytes;
    load_tile<4>(x + s * kStep, p.ldx);
    load_tile<6>(w, kRun);
    dot_u8s8<0, 4, 6>();
    load_tile<7>(w + 64, kRun);
    dot_u8s8<1, 4, 7>();
    load_tile<6>(w + 128, kRun);
    dot_u8s8<2, 4, 6>();
    load_tile<7>(w + 192, kRun);
    dot_u8s8<3, 4, 7>();
  }
  end(p, acc, acc + 2 * kTile);
}

/// A share of the panel that comes next, into L2.
inline void fetch(const int8_t* ahead, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead + i), _MM_HINT_T1);
  }
}

/// All blocks of 32 tokens.
inline void run_blocks(const Panel& p, int64_t rows, const int8_t* ahead) {
  const int64_t share = (p.steps * kStepBytes / (rows / kBlock) + 63) / 64 * 64;
  for (int64_t m = 0; m < rows; m += kBlock, ahead += share) {
    fetch(ahead, share);
    const bool last = m + kBlock == rows;
    block<true>(p, m, 0, p.x + (last ? 0 : m + kBlock) * p.ldx);
    block<false>(p, m, kBlock, nullptr);
  }
}

inline void run_rest(const Panel& p, int64_t m, int64_t rows) {
  if (rows <= kTile) {
    narrow_block(p, m);
  } else {
    block<false>(p, m, 0, nullptr);
    block<false>(p, m, kBlock, nullptr);
  }
}

/// Up to kMaxRows tokens: panel after panel, every token against each.
void run_rows(const DotArgs& args) {
  const int64_t whole = args.m / kBlock * kBlock;
  const TileConfig full = config_for(kBlock);
  const TileConfig rest = config_for(args.m - whole);
  const int64_t steps = args.k / kStep;
  const int64_t panels = (steps + kPanelSteps - 1) / kPanelSteps;
  load_config(whole > 0 ? full : rest);
  for (int64_t i = 0; i < panels; ++i) {  // of nearly equal depth
    const int64_t s = steps * i / panels;
    const int64_t next = steps * (i + 1) / panels;
    for (int64_t n = 0; n < args.n; n += kOutputs) {
      const int8_t* w = args.w + n * args.k;
      const Panel panel = {args.x + s * kStep, args.ldx, w + s * kStepBytes, next - s, args.acc + n,
                           args.ldacc,         s == 0};
      const bool row_ends = n + kOutputs == args.n;
      const int8_t* ahead =
          row_ends ? args.w + next * kStepBytes : w + kOutputs * args.k + s * kStepBytes;
      if (whole > 0) run_blocks(panel, whole, ahead);
      if (whole == args.m) continue;
      if (whole > 0) load_config(rest);
      run_rest(panel, whole, args.m - whole);
      if (whole > 0) load_config(full);
    }
  }
  release_tiles();
}

}  // namespace

void dot_u8s8s32_n64k4_panel(const DotArgs& args) noexcept {
  for (int64_t m = 0; m < args.m; m += kMaxRows) {
    DotArgs rows = args;
    rows.x += m * args.ldx;
    rows.acc += m * args.ldacc;
    rows.m = args.m - m < kMaxRows ? args.m - m : kMaxRows;
    run_rows(rows);
  }
}

}  // namespace qllm::cpu::amx
