// Many tokens, 32 products in three instructions: vpmaddubsw, vpmaddwd by ones, vpaddd.
//
// vpmaddubsw multiplies u8 by s8 and adds pairs, saturating at 16 bits. With weights u = w + 128
// and activations q = x - 128 a pair is u0 q0 + u1 q1: exact where |q0 + q1| <= 128 (255 * 128 <
// 2^15). Activations lie about zero, few near the largest of their row, so that nearly all pairs
// are such. From the others what is too much is taken off q1, and multiplied by itself afterwards:
// alone it cannot saturate either. Where many pairs are too large (samples tell) the kernels
// without such a limit are faster, and compute instead.
//
//   sum_k x w = sum_k q u - 128 sum_k q + 128 sum_k w
//
// The sums may wrap on their way; the result fits, so it is exact.
#include "kernels/dot.h"
#include "kernels/intrin.h"

namespace qllm::cpu::avx2 {
namespace {

constexpr int64_t kOutputs = 64;  // of a block
constexpr int64_t kPanelK = 256;  // inputs: a block is 16 KiB, of which a tile reads 4 by turns
constexpr int kBlocks = 2;        // that share the work on a token's codes: L2 feeds them
constexpr int64_t kSharedTokens = 32;    // from so many on
constexpr int64_t kSteps = kPanelK / 4;  // 64: a word of bits
constexpr int64_t kSampledRows = 8;
constexpr int64_t kCrowd = 10;        // one pair of so many too large: then the others are faster
constexpr int64_t kPanelTokens = 32;  // of them, the panel kernel from so many tokens on
constexpr int kTokens = 5;            // 5 x 2 sums, 2 weights, x, products, ones: 15 registers

/// [pair of registers][step][register]: read linearly by a tile.
struct alignas(64) Panel {
  __m256i u[4][kSteps][2];
  __m256i sum[4][2];  // 128 sum_k w
};

/// A token's inputs of a panel: s8 codes by fours, and what was taken off them.
struct alignas(32) Codes {
  uint32_t q[kSteps];
  uint32_t excess[kSteps];
  uint64_t has_excess;  // a bit each
  int32_t sum;          // -128 sum_k q
};

inline void shift_weights(const int8_t* w, int64_t steps, Panel* panel) {
  const __m256i high = _mm256_set1_epi8(-128);
  const __m256i one8 = _mm256_set1_epi8(1);
  const __m256i shift = _mm256_set1_epi16(128);
  __m256i sum[8];
#pragma GCC unroll 8
  for (int l = 0; l < 8; ++l) sum[l] = _mm256_setzero_si256();
  for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 8
    for (int l = 0; l < 8; ++l) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + s * 256 + l * 32));
      panel->u[l / 2][s][l % 2] = _mm256_xor_si256(v, high);
      sum[l] = _mm256_add_epi16(sum[l], _mm256_maddubs_epi16(one8, v));  // within 256 kSteps
      pin(sum[l]);
    }
  }
#pragma GCC unroll 8
  for (int l = 0; l < 8; ++l) panel->sum[l / 2][l % 2] = _mm256_madd_epi16(sum[l], shift);
}

inline int32_t total(__m256i v) {
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1));
  return _mm_cvtsi128_si32(q);
}

inline void shift_codes(const uint8_t* x, int64_t steps, Codes* codes) {
  const __m256i high = _mm256_set1_epi8(-128);
  const __m256i one8 = _mm256_set1_epi8(1);
  const __m256i most = _mm256_set1_epi16(128);
  const __m256i least = _mm256_set1_epi16(-128);
  __m256i sum = _mm256_setzero_si256();
  uint64_t none = 0;
  for (int64_t i = 0; i < steps; i += 8) {
    const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(x + 4 * i));
    const __m256i q = _mm256_xor_si256(v, high);
    const __m256i pair = _mm256_maddubs_epi16(one8, q);
    sum = _mm256_add_epi16(sum, pair);  // within 256 kSteps / 8
    const __m256i kept = _mm256_min_epi16(_mm256_max_epi16(pair, least), most);
    const __m256i excess = _mm256_slli_epi16(_mm256_sub_epi16(pair, kept), 8);  // of q1
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes->q + i), _mm256_sub_epi8(q, excess));
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes->excess + i), excess);
    const __m256i is_none = _mm256_cmpeq_epi32(excess, _mm256_setzero_si256());
    const int bits = _mm256_movemask_ps(_mm256_castsi256_ps(is_none));
    none |= static_cast<uint64_t>(bits) << i;
  }
  codes->has_excess = ~none & (steps == kSteps ? ~uint64_t{0} : (uint64_t{1} << steps) - 1);
  codes->sum = -total(_mm256_madd_epi16(sum, most));
}

/// acc[kM][16] (+)= over a panel.
template <int kM>
inline void tile(const Codes* codes, const __m256i (*u)[2], const __m256i* u_sum, int64_t steps,
                 int32_t* acc, int64_t ldacc, bool first) {
  __m256i one = _mm256_set1_epi16(1);
  pin(one);
  __m256i sum[kM][2];
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
    _mm_prefetch(reinterpret_cast<const char*>(acc + t * ldacc), _MM_HINT_T0);
    const __m256i x_sum = _mm256_set1_epi32(codes[t].sum);
    sum[t][0] = _mm256_add_epi32(u_sum[0], x_sum);
    sum[t][1] = _mm256_add_epi32(u_sum[1], x_sum);
  }
  for (int64_t s = 0; s < steps; s += 2) {
#pragma GCC unroll 2
    for (int64_t i = s; i < s + 2; ++i) {
      __m256i u0 = u[i][0];
      __m256i u1 = u[i][1];
      pin(u0);
      pin(u1);
#pragma GCC unroll 8
      for (int t = 0; t < kM; ++t) {
        const __m256i q = _mm256_set1_epi32(static_cast<int32_t>(codes[t].q[i]));
        const __m256i p0 = _mm256_madd_epi16(_mm256_maddubs_epi16(u0, q), one);
        const __m256i p1 = _mm256_madd_epi16(_mm256_maddubs_epi16(u1, q), one);
        sum[t][0] = _mm256_add_epi32(sum[t][0], p0);
        pin(sum[t][0]);
        sum[t][1] = _mm256_add_epi32(sum[t][1], p1);
        pin(sum[t][1]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kM; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < 2; ++l) {
      auto* out = reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l);
      _mm256_store_si256(out, first ? sum[t][l] : _mm256_add_epi32(sum[t][l], *out));
    }
  }
}

using TileFn = void (*)(const Codes*, const __m256i (*)[2], const __m256i*, int64_t, int32_t*,
                        int64_t, bool);
constexpr TileFn kTiles[] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>};

/// acc[64] += what was taken off a token's codes.
inline void add_excess(const Codes& codes, const Panel& panel, int32_t* acc) {
  const __m256i one = _mm256_set1_epi16(1);
  auto* out = reinterpret_cast<__m256i*>(acc);
  __m256i sum[8];
#pragma GCC unroll 8
  for (int l = 0; l < 8; ++l) sum[l] = _mm256_load_si256(out + l);
  for (uint64_t left = codes.has_excess; left != 0; left &= left - 1) {
    const int s = __builtin_ctzll(left);
    const __m256i r = _mm256_set1_epi32(static_cast<int32_t>(codes.excess[s]));
#pragma GCC unroll 8
    for (int l = 0; l < 8; ++l) {
      const __m256i u = panel.u[l / 2][s][l % 2];
      sum[l] = _mm256_add_epi32(sum[l], _mm256_madd_epi16(_mm256_maddubs_epi16(u, r), one));
      pin(sum[l]);
    }
  }
#pragma GCC unroll 8
  for (int l = 0; l < 8; ++l) _mm256_store_si256(out + l, sum[l]);
}

/// Outputs [n, n + 64 blocks) and inputs [k, k + 4 steps).
struct Part {
  int64_t n;
  int64_t k;
  int64_t steps;
  int blocks;
};

inline void prefetch(const uint8_t* x) {
  for (int64_t i = 0; i < kPanelK; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(x + i), _MM_HINT_T0);
  }
}

/// Of the weights that the part behind `part` begins with, those that one in `calls` fetches.
inline void prefetch_weights(const DotArgs& args, const Part& part, int64_t call, int64_t calls) {
  constexpr int64_t kLines = kPanelK;  // of 64 bytes, of a block
  const int8_t* next = args.w + part.n * args.k + (part.k + kPanelK) * kOutputs;
  for (int64_t i = kLines * call / calls; i < kLines * (call + 1) / calls; ++i) {
    for (int b = 0; b < part.blocks; ++b) {
      const int8_t* line = next + b * kOutputs * args.k + 64 * i;
      _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1);
    }
  }
}

/// All tokens against a part, in tiles of nearly equal size.
inline void multiply(const DotArgs& args, const Part& part, const Panel* panels) {
  Codes codes[kTokens];
  const int64_t tiles = (args.m + kTokens - 1) / kTokens;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t m = args.m * i / tiles;
    const int64_t tokens = args.m * (i + 1) / tiles - m;
    const uint8_t* x = args.x + m * args.ldx + part.k;
    for (int64_t t = 0; t < tokens; ++t) {
      shift_codes(x + t * args.ldx, part.steps, &codes[t]);
      prefetch(x + (t + tokens) * args.ldx);
    }
    for (int b = 0; b < part.blocks; ++b) {
      const Panel& panel = panels[b];
      int32_t* acc = args.acc + m * args.ldacc + part.n + b * kOutputs;
      for (int l = 0; l < 4; ++l) {
        prefetch_weights(args, part, (i * part.blocks + b) * 4 + l, 4 * tiles * part.blocks);
        kTiles[tokens](codes, panel.u[l], panel.sum[l], part.steps, acc + 16 * l, args.ldacc,
                       part.k == 0);
      }
      for (int64_t t = 0; t < tokens; ++t) {
        if (codes[t].has_excess != 0) add_excess(codes[t], panel, acc + t * args.ldacc);
      }
    }
  }
}

/// Whether so many pairs are too large that the other kernels are faster: of some rows' inputs.
inline bool is_crowded(const DotArgs& args) {
  const int64_t rows = args.m < kSampledRows ? args.m : kSampledRows;
  const __m256i high = _mm256_set1_epi8(-128);
  const __m256i most = _mm256_set1_epi16(128);
  __m256i crowd = _mm256_setzero_si256();
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* x = args.x + args.m * r / rows * args.ldx;
    for (int64_t k = 0; k < args.k; k += 32) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(x + k));
      const __m256i pair = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_xor_si256(v, high));
      const __m256i over = _mm256_cmpgt_epi16(_mm256_abs_epi16(pair), most);  // -1 each
      crowd = _mm256_sub_epi32(crowd, _mm256_madd_epi16(over, over));
    }
  }
  return -total(crowd) * kCrowd > rows * args.k / 2;
}

}  // namespace

// Where pairs are too large; in files of their names.
void dot_u8s8s32_n64k4_stream(const DotArgs& args) noexcept;
void dot_u8s8s32_n64k4_panel(const DotArgs& args) noexcept;

void dot_u8s8s32_n64k4_bytes(const DotArgs& args) noexcept {
  if (is_crowded(args)) {
    return args.m < kPanelTokens ? dot_u8s8s32_n64k4_stream(args) : dot_u8s8s32_n64k4_panel(args);
  }
  Panel panels[kBlocks];
  const int most = args.m < kSharedTokens ? 1 : kBlocks;
  for (int64_t n = 0; n < args.n; n += most * kOutputs) {
    const int64_t blocks = (args.n - n) / kOutputs;
    Part part = {n, 0, 0, blocks < most ? static_cast<int>(blocks) : most};
    for (; part.k < args.k; part.k += kPanelK) {
      part.steps = (args.k - part.k < kPanelK ? args.k - part.k : kPanelK) / 4;
      for (int b = 0; b < part.blocks; ++b) {
        const int64_t at = (n + b * kOutputs) * args.k + part.k * kOutputs;
        shift_weights(args.w + at, part.steps, &panels[b]);
      }
      multiply(args, part, panels);
    }
  }
}

}  // namespace qllm::cpu::avx2
