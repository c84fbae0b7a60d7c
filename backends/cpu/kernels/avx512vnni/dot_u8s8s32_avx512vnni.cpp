// vpdpbusd on whole lines of the packed layout: 16 outputs x 4 inputs an instruction, exact in s32.
//
// One tile of kM tokens x 64 outputs (four registers) over all of K: the weights of a block column
// are read front to back once per tile, and up to kMaxTile tokens share that read.
#include "kernels/dot.h"
#include "kernels/intrin.h"

namespace qllm::cpu::avx512vnni {
namespace {

constexpr int64_t kOutputs = 64;  // of a block
constexpr int64_t kRun = 256;     // bytes: 64 outputs x 4 inputs
constexpr int64_t kMaxTile = 6;   // 6 x 4 sums + 4 weights + x: 29 of 32 registers
constexpr int64_t kPanelK = 256;  // inputs whose weights (16 KiB) stay in L1 between tiles
constexpr int64_t kAhead = 4096;  // bytes that the prefetch runs ahead of the stream

inline __m512i broadcast(const uint8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

/// acc[kM][64] (+)= x[kM][k] . w over k inputs of a block column.
template <int kM, bool kPrefetch>
inline void tile(const uint8_t* x, int64_t ldx, const int8_t* w, int64_t k, int32_t* acc,
                 int64_t ldacc, bool first) {
  __m512i sum[kM][4];
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < 4; ++l) {
      sum[t][l] = first ? _mm512_setzero_si512() : _mm512_loadu_si512(acc + t * ldacc + 16 * l);
    }
  }
  for (int64_t i = 0; i < k; i += 4, w += kRun) {
    __m512i line[4];
#pragma GCC unroll 8
    for (int l = 0; l < 4; ++l) {
      if constexpr (kPrefetch) {
        _mm_prefetch(reinterpret_cast<const char*>(w + kAhead + 64 * l), _MM_HINT_T0);
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
    for (int l = 0; l < 4; ++l) _mm512_storeu_si512(acc + t * ldacc + 16 * l, sum[t][l]);
  }
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool);
constexpr TileFn kFirst[kMaxTile + 1] = {nullptr,       tile<1, true>, tile<2, true>, tile<3, true>,
                                         tile<4, true>, tile<5, true>, tile<6, true>};
constexpr TileFn kRest[kMaxTile + 1] = {nullptr,        tile<1, false>, tile<2, false>,
                                        tile<3, false>, tile<4, false>, tile<5, false>,
                                        tile<6, false>};

/// All tokens against `k` inputs of a block column, in tiles of nearly equal size: 7 = 4 + 3. The
/// first tile brings the weights into L1, the others find them there.
inline void panel(const DotArgs& args, const uint8_t* x, const int8_t* w, int64_t k, int32_t* acc,
                  bool first) {
  const int64_t tiles = (args.m + kMaxTile - 1) / kMaxTile;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t m = args.m * i / tiles;
    const int64_t tokens = args.m * (i + 1) / tiles - m;
    const TileFn* fns = i == 0 ? kFirst : kRest;
    fns[tokens](x + m * args.ldx, args.ldx, w, k, acc + m * args.ldacc, args.ldacc, first);
  }
}

}  // namespace

void dot_u8s8s32_n64k4_tile(const DotArgs& args) noexcept {
  const int64_t depth = args.m <= kMaxTile ? args.k : kPanelK;
  for (int64_t n = 0; n < args.n; n += kOutputs) {
    for (int64_t k = 0; k < args.k; k += depth) {
      const int64_t inputs = args.k - k < depth ? args.k - k : depth;
      panel(args, args.x + k, args.w + n * args.k + k * kOutputs, inputs, args.acc + n, k == 0);
    }
  }
}

}  // namespace qllm::cpu::avx512vnni
