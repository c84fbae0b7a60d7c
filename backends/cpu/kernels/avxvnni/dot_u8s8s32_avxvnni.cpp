// vpdpbusd on line halves of the packed layout: 8 outputs x 4 inputs an instruction, exact in s32.
//
// A chunk of K (4 KiB of a block column) is taken by tiles of up to six tokens x 16 outputs; one
// token takes all 64 outputs at once. The first tile brings the chunk into L1.
#include "kernels/dot.h"
#include "kernels/intrin.h"

namespace qllm::cpu::avxvnni {
namespace {

constexpr int64_t kOutputs = 64;  // of a block
constexpr int64_t kRun = 256;     // bytes: 64 outputs x 4 inputs
constexpr int64_t kMaxTile = 6;   // 6 x 2 sums + 2 weights + x: 15 of 16 registers
constexpr int64_t kPanelK = 128;  // inputs whose weights (8 KiB) stay in L1 between tiles
constexpr int64_t kAhead = 8192;  // bytes that the prefetch runs ahead of the stream

inline __m256i broadcast(const uint8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

/// acc[kM][8 * kLines] (+)= x[kM][k] . w over k inputs.
template <int kM, int kLines, bool kPrefetch>
inline void tile(const uint8_t* x, int64_t ldx, const int8_t* w, int64_t k, int32_t* acc,
                 int64_t ldacc, bool first) {
  __m256i sum[kM][kLines];
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) {
      sum[t][l] = first ? _mm256_setzero_si256()
                        : _mm256_load_si256(reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l));
    }
  }
  for (int64_t i = 0; i < k; i += 4, w += kRun) {
    if constexpr (kPrefetch) {
#pragma GCC unroll 8
      for (int l = 0; l < kLines / 2; ++l) {  // these outputs' lines, kAhead / kRun steps later
        _mm_prefetch(reinterpret_cast<const char*>(w + kAhead + 64 * l), _MM_HINT_T0);
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
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l), sum[t][l]);
    }
  }
}

/// All 64 outputs of a block column over k inputs, 8 * kLines at a time.
template <int kM, int kLines, bool kPrefetch>
inline void columns(const uint8_t* x, int64_t ldx, const int8_t* w, int64_t k, int32_t* acc,
                    int64_t ldacc, bool first) {
  for (int o = 0; o < kOutputs; o += 8 * kLines) {
    tile<kM, kLines, kPrefetch>(x, ldx, w + 4 * o, k, acc + o, ldacc, first);
  }
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool);
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

}  // namespace

void dot_u8s8s32_n64k4_tile(const DotArgs& args) noexcept {
  const int64_t tiles = (args.m + kMaxTile - 1) / kMaxTile;
  const int64_t depth = args.m == 1 ? args.k : kPanelK;
  for (int64_t n = 0; n < args.n; n += kOutputs) {
    for (int64_t k = 0; k < args.k; k += depth) {
      const int64_t inputs = args.k - k < depth ? args.k - k : depth;
      const int8_t* w = args.w + n * args.k + k * kOutputs;
      for (int64_t i = 0; i < tiles; ++i) {  // of nearly equal size: 7 = 4 + 3
        const int64_t m = args.m * i / tiles;
        const int64_t tokens = args.m * (i + 1) / tiles - m;
        const TileFn* fns = i == 0 ? kFirst : kRest;
        fns[tokens](args.x + m * args.ldx + k, args.ldx, w, inputs, args.acc + m * args.ldacc + n,
                    args.ldacc, k == 0);
      }
    }
  }
}

}  // namespace qllm::cpu::avxvnni
