// vpdpbusd on whole lines of the packed layout: 16 outputs x 4 inputs an instruction, exact in s32.
//
// A tile of kM tokens x 64 outputs (four registers) multiplies a piece of a block column; up to
// kMaxTile tokens share its weights in registers, all others find them in L1. The tile's sums are
// added to those in memory at its end: loaded at its beginning they would be waited for. Pieces are
// taken from several columns by turns (kernels/turns.h) and prefetched one or two ahead. Not
// measured: the order is that of stream_avx2, where it was (docs/kernels.md).
#include "kernels/dot.h"
#include "kernels/intrin.h"
#include "kernels/turns.h"

namespace qllm::cpu::avx512vnni {
namespace {

constexpr int64_t kOutputs = 64;     // of a block
constexpr int64_t kRun = 256;        // bytes: 64 outputs x 4 inputs
constexpr int64_t kMaxTile = 6;      // 6 x 4 sums + 4 weights + x: 29 of 32 registers
constexpr int64_t kPieceK = 64;      // inputs of a piece for one tile of tokens: 4 KiB
constexpr int64_t kPanelK = 256;     // for more: 16 KiB, which stay in L1 while all tiles pass
constexpr int64_t kTurnTokens = 48;  // up to so many tokens, columns are read by turns

inline __m512i broadcast(const uint8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

/// acc[kM][64] (+)= x[kM][k] . w over k inputs of a block column. Meanwhile brings the weights at
/// `ahead`.
template <int kM, bool kPrefetch>
inline void tile(const uint8_t* x, int64_t ldx, const int8_t* w, int64_t k, int32_t* acc,
                 int64_t ldacc, bool first, const int8_t* ahead) {
  __m512i sum[kM][4];
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < 4; ++l) {
      sum[t][l] = _mm512_setzero_si512();
      _mm_prefetch(reinterpret_cast<const char*>(acc + t * ldacc + 16 * l), _MM_HINT_T0);
    }
  }
  for (int64_t i = 0; i < k; i += 4, w += kRun, ahead += kRun) {
    __m512i line[4];
#pragma GCC unroll 8
    for (int l = 0; l < 4; ++l) {
      if constexpr (kPrefetch) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead + 64 * l), _MM_HINT_T0);
      }
      line[l] = _mm512_loadu_si512(w + 64 * l);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kM; ++t) {
      const __m512i v = broadcast(x + t * ldx + i);
#pragma GCC unroll 8
      for (int l = 0; l < 4; ++l) sum[t][l] = _mm512_dpbusd_epi32(sum[t][l], v, line[l]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < 4; ++l) {
      int32_t* out = acc + t * ldacc + 16 * l;
      if (!first) sum[t][l] = _mm512_add_epi32(sum[t][l], _mm512_loadu_si512(out));
      _mm512_storeu_si512(out, sum[t][l]);
    }
  }
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool,
                        const int8_t*);
constexpr TileFn kFirst[kMaxTile + 1] = {nullptr,       tile<1, true>, tile<2, true>, tile<3, true>,
                                         tile<4, true>, tile<5, true>, tile<6, true>};
constexpr TileFn kRest[kMaxTile + 1] = {nullptr,        tile<1, false>, tile<2, false>,
                                        tile<3, false>, tile<4, false>, tile<5, false>,
                                        tile<6, false>};

/// One piece: `inputs` of x and of the weights at w, for the sums at acc.
struct Piece {
  const uint8_t* x;
  const int8_t* w;
  int32_t* acc;
  int64_t inputs;
  bool first;  // of its column
};

/// All tokens against a piece, in tiles of nearly equal size: 7 = 4 + 3. The first tile brings the
/// weights into L1, the others find them there; each brings the x of the next.
inline void visit(const DotArgs& args, const Piece& p, const int8_t* ahead) {
  const int64_t tiles = (args.m + kMaxTile - 1) / kMaxTile;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t m = args.m * i / tiles;
    const int64_t tokens = args.m * (i + 1) / tiles - m;
    for (int64_t t = 0; i + 1 < tiles && t < tokens; ++t) {
      const uint8_t* next = p.x + (m + t + tokens) * args.ldx;
      for (int64_t k = 0; k < p.inputs; k += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(next + k), _MM_HINT_T0);
      }
    }
    const TileFn* fns = i == 0 ? kFirst : kRest;
    fns[tokens](p.x + m * args.ldx, args.ldx, p.w, p.inputs, p.acc + m * args.ldacc, args.ldacc,
                p.first, ahead);
  }
}

/// Block columns [first, last), a piece of each by turns.
inline void run_turn(const DotArgs& args, int64_t depth, int64_t first, int64_t last) {
  const Turns turns = {args, depth, first, last};
  const int64_t lead = depth == kPieceK ? 2 : 1;  // pieces that the prefetch runs ahead
  int64_t i = 0;
  for (int64_t k = 0; k < args.k; k += depth) {
    const int64_t inputs = args.k - k < depth ? args.k - k : depth;
    for (int64_t c = first; c < last; ++c, ++i) {
      const Piece piece = {args.x + k, turns.weights(c, k), args.acc + c * kOutputs, inputs,
                           k == 0};
      visit(args, piece, turns.piece(i + lead));
    }
  }
}

}  // namespace

void dot_u8s8s32_n64k4_tile(const DotArgs& args) noexcept {
  const int64_t depth = args.m <= kMaxTile ? kPieceK : kPanelK;
  by_turns(args, args.m <= kTurnTokens ? kStreams : 1,
           [&](int64_t first, int64_t last) { run_turn(args, depth, first, last); });
}

}  // namespace qllm::cpu::avx512vnni
