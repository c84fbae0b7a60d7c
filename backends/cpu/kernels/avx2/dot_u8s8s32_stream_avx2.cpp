// Small M: the weights stream from memory once, whole, and every token takes its share of a line
// while it is in registers.
//
// vpmaddubsw would saturate (255 * -128 * 2), so the sums are made exactly: of a dword w0 w1 w2 w3
//   even = (w << 8) >>a 8 = {w0, w2},  odd = w >>a 8 = {w1, w3}      as pairs of s16
//   xe   = x & 0x00ff00ff = {x0, x2},  xo  = x >>l 8 = {x1, x3}      as pairs of u16
//   acc += vpmaddwd(even, xe) + vpmaddwd(odd, xo)                    |each| <= 2 * 255 * 128
// Three shifts per line half serve all tokens of a tile; a token costs two vpmaddwd and two vpaddd.
//
// Up to kStreams block columns are read by turns, a piece of each, so that as many streams are on
// their way from memory at once. Tiles take a piece in strips of a few outputs, so its lines are
// asked for in an order that no hardware foresees: while a piece is multiplied, the one that comes
// two turns later is prefetched line by line, front to back.
#include "kernels/dot.h"
#include "kernels/intrin.h"
#include "kernels/turns.h"

namespace qllm::cpu::avx2 {
namespace {

constexpr int64_t kOutputs = 64;  // of a block
constexpr int64_t kRun = 256;     // bytes: 64 outputs x 4 inputs
constexpr int64_t kPieceK = 64;   // inputs whose weights (4 KiB) stay in L1 between tiles
constexpr int64_t kSteps = kPieceK / 4;
constexpr int64_t kAhead = 2;       // pieces that the prefetch runs ahead: 8 KiB
constexpr int64_t kGroups = 1;      // groups of four inputs of a column in one turn of M = 1
constexpr int64_t kMaxTile = 6;     // tokens that share the decoding of a line
constexpr int64_t kMaxTokens = 48;  // tokens whose expanded x of a piece is kept: 6 KiB

/// x of a piece, as the pairs that vpmaddwd wants: even then odd, four inputs a step.
struct alignas(32) Pairs {
  uint32_t even[kSteps];
  uint32_t odd[kSteps];
};

inline void expand(const uint8_t* x, Pairs* pairs) {
  const __m256i low = _mm256_set1_epi32(0x00ff00ff);
  for (int64_t i = 0; i < kSteps; i += 8) {
    const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(x + 4 * i));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs->even + i), _mm256_and_si256(v, low));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs->odd + i), _mm256_srli_epi16(v, 8));
  }
}

inline __m256i broadcast(const uint32_t* p) { return _mm256_set1_epi32(static_cast<int32_t>(*p)); }

/// acc[M][8 * kLines] (+)= x[M][64] . w for 8 * kLines outputs of a piece. Meanwhile brings as many
/// lines from `ahead` on as it reads itself.
template <int kTokens, int kLines, bool kPrefetch>
inline void tile(const Pairs* pairs, const int8_t* w, int32_t* acc, int64_t ldacc, bool first,
                 const int8_t* ahead) {
  __m256i sum[kTokens][kLines];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) {
      sum[t][l] = first ? _mm256_setzero_si256()
                        : _mm256_load_si256(reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l));
    }
  }
  for (int64_t s = 0; s < kSteps; ++s) {
    const int8_t* run = w + s * kRun;
    if constexpr (kPrefetch) {
#pragma GCC unroll 8
      for (int i = 0; i < kLines / 2; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(ahead + (s * kLines + 2 * i) * 32), _MM_HINT_T0);
      }
    }
    __m256i even[kLines];
    __m256i odd[kLines];
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(run + 32 * l));
      even[l] = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
      odd[l] = _mm256_srai_epi16(v, 8);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256i xe = broadcast(pairs[t].even + s);
      const __m256i xo = broadcast(pairs[t].odd + s);
#pragma GCC unroll 8
      for (int l = 0; l < kLines; ++l) {
        sum[t][l] = _mm256_add_epi32(sum[t][l], _mm256_madd_epi16(even[l], xe));
        pin(sum[t][l]);
        sum[t][l] = _mm256_add_epi32(sum[t][l], _mm256_madd_epi16(odd[l], xo));
        pin(sum[t][l]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l), sum[t][l]);
    }
  }
}

/// All 64 outputs of a piece for kTokens tokens, kLines line halves at a time.
template <int kTokens, int kLines, bool kPrefetch>
inline void piece(const Pairs* pairs, const int8_t* w, int32_t* acc, int64_t ldacc, bool first,
                  const int8_t* ahead) {
  for (int o = 0; o < kOutputs; o += 8 * kLines) {
    tile<kTokens, kLines, kPrefetch>(pairs, w + 4 * o, acc + o, ldacc, first,
                                     ahead + o / 8 * kSteps * 32);
  }
}

using PieceFn = void (*)(const Pairs*, const int8_t*, int32_t*, int64_t, bool, const int8_t*);

// M = 1 has a loop of its own, and tiles of nearly equal size never leave one token over.
// Registers: kTokens * kLines sums, two for x, up to two for each line half. Only the first tile of
// a piece prefetches.
constexpr PieceFn kFirst[kMaxTile + 1] = {nullptr,           piece<1, 4, true>, piece<2, 4, true>,
                                          piece<3, 2, true>, piece<4, 2, true>, piece<5, 2, true>,
                                          piece<6, 2, true>};
constexpr PieceFn kRest[kMaxTile + 1] = {nullptr,
                                         nullptr,
                                         piece<2, 4, false>,
                                         piece<3, 2, false>,
                                         piece<4, 2, false>,
                                         piece<5, 2, false>,
                                         piece<6, 2, false>};

/// sums += x[0, 4 kGroups) . w for the 64 outputs of one block column.
inline void visit_one(const uint8_t* x, const int8_t* w, int32_t* acc) {
  const __m256i low = _mm256_set1_epi32(0x00ff00ff);
  __m256i sum[8];
#pragma GCC unroll 8
  for (int l = 0; l < 8; ++l) sum[l] = _mm256_load_si256(reinterpret_cast<__m256i*>(acc + 8 * l));
#pragma GCC unroll 4
  for (int64_t g = 0; g < kGroups; ++g) {
    uint32_t quad;
    __builtin_memcpy(&quad, x + 4 * g, sizeof quad);
    const __m256i v4 = broadcast(&quad);
    const __m256i xe = _mm256_and_si256(v4, low);
    const __m256i xo = _mm256_srli_epi16(v4, 8);
#pragma GCC unroll 8
    for (int l = 0; l < 8; ++l) {
      const auto* line = reinterpret_cast<const __m256i*>(w + g * kRun + 32 * l);
      const __m256i v = _mm256_load_si256(line);
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
      sum[l] = _mm256_add_epi32(sum[l], _mm256_madd_epi16(even, xe));
      sum[l] = _mm256_add_epi32(sum[l], _mm256_madd_epi16(_mm256_srai_epi16(v, 8), xo));
    }
  }
#pragma GCC unroll 8
  for (int l = 0; l < 8; ++l) _mm256_store_si256(reinterpret_cast<__m256i*>(acc + 8 * l), sum[l]);
}

/// M = 1: 256 bytes of a column in a turn, its sums wait in L1 meanwhile (docs/performance.md).
inline void run_one(const DotArgs& args, int64_t first, int64_t last) {
  for (int64_t o = first * kOutputs; o < last * kOutputs; o += 8) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(args.acc + o), _mm256_setzero_si256());
  }
  for (int64_t k = 0; k < args.k; k += 4 * kGroups) {
    for (int64_t c = first; c < last; ++c) {
      const int8_t* w = args.w + c * kOutputs * args.k + k * kOutputs;
      visit_one(args.x + k, w, args.acc + c * kOutputs);
    }
  }
}

/// All tokens against one piece, in tiles of nearly equal size: 7 = 4 + 3.
inline void visit(const DotArgs& args, const Pairs* pairs, const int8_t* w, int64_t column,
                  bool first, const int8_t* ahead) {
  const int64_t tiles = (args.m + kMaxTile - 1) / kMaxTile;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t m = args.m * i / tiles;
    const int64_t tokens = args.m * (i + 1) / tiles - m;
    const PieceFn* fns = i == 0 ? kFirst : kRest;
    fns[tokens](pairs + m, w, args.acc + m * args.ldacc + column * kOutputs, args.ldacc, first,
                ahead);
  }
}

/// Up to kMaxTokens tokens.
inline void run_tokens(const DotArgs& args, int64_t first, int64_t last) {
  Pairs pairs[kMaxTokens];
  const Turns turns = {args, kPieceK, first, last};
  int64_t i = 0;
  for (int64_t k = 0; k < args.k; k += kPieceK) {
    for (int64_t t = 0; t < args.m; ++t) expand(args.x + t * args.ldx + k, &pairs[t]);
    for (int64_t c = first; c < last; ++c, ++i) {
      visit(args, pairs, turns.weights(c, k), c, k == 0, turns.piece(i + kAhead));
    }
  }
}

}  // namespace

void dot_u8s8s32_n64k4_stream(const DotArgs& args) noexcept {
  if (args.m == 1) {
    return by_turns(args, kStreams,
                    [&](int64_t first, int64_t last) { run_one(args, first, last); });
  }
  for (int64_t m = 0; m < args.m; m += kMaxTokens) {
    DotArgs part = args;
    part.x += m * args.ldx;
    part.acc += m * args.ldacc;
    part.m = args.m - m < kMaxTokens ? args.m - m : kMaxTokens;
    by_turns(part, kStreams, [&](int64_t first, int64_t last) { run_tokens(part, first, last); });
  }
}

}  // namespace qllm::cpu::avx2
