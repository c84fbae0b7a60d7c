// vpdpbusd on line halves of the packed layout: 8 outputs x 4 inputs an instruction, exact in s32.
//
// A piece of a block column is taken by tiles of up to six tokens, in strips of 16 to 64 outputs.
// The tile's sums are added to those in memory at its end: loaded at its beginning they would be
// waited for. Pieces are taken from several columns by turns (kernels/turns.h); the first tile
// prefetches the one that comes two turns later, line by line, front to back, since strips ask for
// lines in an order that no hardware foresees. Not measured: the order is that of stream_avx2,
// where it was (docs/kernels.md).
#include "kernels/dot.h"
#include "kernels/intrin.h"
#include "kernels/turns.h"

namespace qllm::cpu::avxvnni {
namespace {

constexpr int64_t kOutputs = 64;     // of a block
constexpr int64_t kRun = 256;        // bytes: 64 outputs x 4 inputs
constexpr int64_t kMaxTile = 6;      // 6 x 2 sums + 2 weights + x: 15 of 16 registers
constexpr int64_t kPieceK = 64;      // inputs of a piece for few tokens: 4 KiB
constexpr int64_t kPanelK = 128;     // for more: 8 KiB, which stay in L1 while all tiles pass
constexpr int64_t kTurnTokens = 48;  // up to so many tokens, columns are read by turns
constexpr int64_t kAhead = 2;        // pieces that the prefetch runs ahead

inline __m256i broadcast(const uint8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

/// acc[kM][8 * kLines] (+)= x[kM][k] . w over k inputs. Meanwhile brings as many lines from `ahead`
/// on as it reads itself.
template <int kM, int kLines, bool kPrefetch>
inline void tile(const uint8_t* x, int64_t ldx, const int8_t* w, int64_t k, int32_t* acc,
                 int64_t ldacc, bool first, const int8_t* ahead) {
  __m256i sum[kM][kLines];
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) {
      sum[t][l] = _mm256_setzero_si256();
      if (l % 2 == 0) {
        _mm_prefetch(reinterpret_cast<const char*>(acc + t * ldacc + 8 * l), _MM_HINT_T0);
      }
    }
  }
  for (int64_t i = 0; i < k; i += 4, w += kRun) {
    if constexpr (kPrefetch) {
#pragma GCC unroll 8
      for (int l = 0; l < kLines / 2; ++l) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead + i * kLines * 8 + 64 * l), _MM_HINT_T0);
      }
    }
    __m256i line[kLines];
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) {
      line[l] = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + 32 * l));
    }
#pragma GCC unroll 8
    for (int t = 0; t < kM; ++t) {
      const __m256i v = broadcast(x + t * ldx + i);
#pragma GCC unroll 8
      for (int l = 0; l < kLines; ++l) {
        sum[t][l] = _mm256_dpbusd_avx_epi32(sum[t][l], v, line[l]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) {
      auto* out = reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l);
      _mm256_store_si256(out, first ? sum[t][l] : _mm256_add_epi32(sum[t][l], *out));
    }
  }
}

/// All 64 outputs of a block column over k inputs, 8 * kLines at a time.
template <int kM, int kLines, bool kPrefetch>
inline void columns(const uint8_t* x, int64_t ldx, const int8_t* w, int64_t k, int32_t* acc,
                    int64_t ldacc, bool first, const int8_t* ahead) {
  for (int o = 0; o < kOutputs; o += 8 * kLines) {
    tile<kM, kLines, kPrefetch>(x, ldx, w + 4 * o, k, acc + o, ldacc, first, ahead + o * k);
  }
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool,
                        const int8_t*);
constexpr TileFn kFirst[kMaxTile + 1] = {nullptr,
                                         columns<1, 8, true>,
                                         columns<2, 4, true>,
                                         columns<3, 4, true>,
                                         columns<4, 2, true>,
                                         columns<5, 2, true>,
                                         columns<6, 2, true>};
constexpr TileFn kRest[kMaxTile + 1] = {nullptr,
                                        columns<1, 8, false>,
                                        columns<2, 4, false>,
                                        columns<3, 4, false>,
                                        columns<4, 2, false>,
                                        columns<5, 2, false>,
                                        columns<6, 2, false>};

/// One piece: `inputs` of x and of the weights at w, for the sums at acc.
struct Piece {
  const uint8_t* x;
  const int8_t* w;
  int32_t* acc;
  int64_t inputs;
  bool first;  // of its column
};

/// All tokens against a piece, in tiles of nearly equal size: 7 = 4 + 3.
inline void visit(const DotArgs& args, const Piece& p, const int8_t* ahead) {
  const int64_t tiles = (args.m + kMaxTile - 1) / kMaxTile;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t m = args.m * i / tiles;
    const int64_t tokens = args.m * (i + 1) / tiles - m;
    const TileFn* fns = i == 0 ? kFirst : kRest;
    fns[tokens](p.x + m * args.ldx, args.ldx, p.w, p.inputs, p.acc + m * args.ldacc, args.ldacc,
                p.first, ahead);
  }
}

/// Block columns [first, last), a piece of each by turns.
inline void run_turn(const DotArgs& args, int64_t depth, int64_t first, int64_t last) {
  const Turns turns = {args, depth, first, last};
  int64_t i = 0;
  for (int64_t k = 0; k < args.k; k += depth) {
    const int64_t inputs = args.k - k < depth ? args.k - k : depth;
    for (int64_t c = first; c < last; ++c, ++i) {
      const Piece piece = {args.x + k, turns.weights(c, k), args.acc + c * kOutputs, inputs,
                           k == 0};
      visit(args, piece, turns.piece(i + kAhead));
    }
  }
}

}  // namespace

void dot_u8s8s32_n64k4_tile(const DotArgs& args) noexcept {
  const bool few = args.m <= kTurnTokens;
  by_turns(args, few ? kStreams : 1, [&](int64_t first, int64_t last) {
    run_turn(args, few ? kPieceK : kPanelK, first, last);
  });
}

}  // namespace qllm::cpu::avxvnni
