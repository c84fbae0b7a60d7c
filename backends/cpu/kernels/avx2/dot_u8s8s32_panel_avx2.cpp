// Large M: a panel of 64 outputs x kPanelK inputs is widened to s16 once, into L1, and every token
// multiplies against it. The inner loop is then vpmaddwd and vpaddd alone: two of each per 32
// multiply-adds, which on a core with four vector pipes (two of them multiplying) is 32 a cycle.
// A panel's sums are added to those in memory at its end: loaded at its beginning they would be
// waited for. They and the x of the next tile, rows far apart, are prefetched.
//
// Pairs as in dot_u8s8s32_stream_avx2.cpp: even {w0, w2} . {x0, x2}, odd {w1, w3} . {x1, x3}.
#include "kernels/dot.h"
#include "kernels/intrin.h"

namespace qllm::cpu::avx2 {
namespace {

constexpr int64_t kOutputs = 64;  // of a block
constexpr int64_t kPanelK = 128;  // inputs: 16 KiB of a 32 KiB L1
constexpr int64_t kSteps = kPanelK / 4;
constexpr int kTokens = 5;  // 5 x 2 sums + 2 weights + x + products; with 6 gcc spills a sum
constexpr int kLines = 2;   // registers of 8 outputs

/// [pair of registers][step][even 0, even 1, odd 0, odd 1]: read linearly by a tile.
struct alignas(64) Panel {
  __m256i w[4][kSteps][4];
};

struct alignas(32) Pairs {
  uint32_t even[kSteps];
  uint32_t odd[kSteps];
};

inline void widen(const int8_t* w, int64_t steps, Panel* panel) {
  for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 8
    for (int l = 0; l < 8; ++l) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + s * 256 + l * 32));
      panel->w[l / 2][s][l % 2] = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
      panel->w[l / 2][s][l % 2 + 2] = _mm256_srai_epi16(v, 8);
    }
  }
}

inline void expand(const uint8_t* x, int64_t steps, Pairs* pairs) {
  const __m256i low = _mm256_set1_epi32(0x00ff00ff);
  for (int64_t i = 0; i < steps; i += 8) {
    const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(x + 4 * i));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs->even + i), _mm256_and_si256(v, low));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs->odd + i), _mm256_srli_epi16(v, 8));
  }
}

/// acc[kM][16] (+)= over a panel.
template <int kM>
inline void tile(const Pairs* pairs, const __m256i (*w)[4], int64_t steps, int32_t* acc,
                 int64_t ldacc, bool first) {
  __m256i sum[kM][kLines];
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
    _mm_prefetch(reinterpret_cast<const char*>(acc + t * ldacc), _MM_HINT_T0);
#pragma GCC unroll 8
    for (int l = 0; l < kLines; ++l) sum[t][l] = _mm256_setzero_si256();
  }
  for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 8
    for (int h = 0; h < 2; ++h) {
      const __m256i w0 = w[s][2 * h];
      const __m256i w1 = w[s][2 * h + 1];
#pragma GCC unroll 8
      for (int t = 0; t < kM; ++t) {
        const uint32_t* p = h == 0 ? pairs[t].even : pairs[t].odd;
        const __m256i x = _mm256_set1_epi32(static_cast<int32_t>(p[s]));
        sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(w0, x));
        pin(sum[t][0]);
        sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(w1, x));
        pin(sum[t][1]);
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

using TileFn = void (*)(const Pairs*, const __m256i (*)[4], int64_t, int32_t*, int64_t, bool);
constexpr TileFn kTiles[kTokens + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>};

inline void prefetch(const uint8_t* x) {
  for (int64_t i = 0; i < kPanelK; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(x + i), _MM_HINT_T0);
  }
}

/// All tokens against a panel, in tiles of nearly equal size. x and acc begin at its first input
/// and output.
inline void multiply(const DotArgs& args, const Panel& panel, const uint8_t* x, int64_t steps,
                     int32_t* acc, bool first) {
  Pairs pairs[kTokens];
  const int64_t tiles = (args.m + kTokens - 1) / kTokens;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t m = args.m * i / tiles;
    const int64_t tokens = args.m * (i + 1) / tiles - m;
    for (int64_t t = 0; t < tokens; ++t) {
      expand(x + (m + t) * args.ldx, steps, &pairs[t]);
      prefetch(x + (m + t + tokens) * args.ldx);
    }
#pragma GCC unroll 8
    for (int l = 0; l < 4; ++l) {
      kTiles[tokens](pairs, panel.w[l], steps, acc + m * args.ldacc + 16 * l, args.ldacc, first);
    }
  }
}

}  // namespace

void dot_u8s8s32_n64k4_panel(const DotArgs& args) noexcept {
  Panel panel;
  for (int64_t n = 0; n < args.n; n += kOutputs) {
    for (int64_t k = 0; k < args.k; k += kPanelK) {
      const int64_t steps = (args.k - k < kPanelK ? args.k - k : kPanelK) / 4;
      widen(args.w + n * args.k + k * kOutputs, steps, &panel);
      multiply(args, panel, args.x + k, steps, args.acc + n, k == 0);
    }
  }
}

}  // namespace qllm::cpu::avx2
