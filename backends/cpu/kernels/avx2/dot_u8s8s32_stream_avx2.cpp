// Small M: the weights stream from memory once, whole, and every token takes its share of a line
// while it is in registers.
//
// vpmaddubsw would saturate (255 * -128 * 2), so the sums are made exactly: of a dword w0 w1 w2 w3
//   even = (w << 8) >>a 8 = {w0, w2},  odd = w >>a 8 = {w1, w3}      as pairs of s16
//   xe   = x & 0x00ff00ff = {x0, x2},  xo  = x >>l 8 = {x1, x3}      as pairs of u16
//   acc += vpmaddwd(even, xe) + vpmaddwd(odd, xo)                    |each| <= 2 * 255 * 128
// Three shifts per line half serve all tokens of a tile; a token costs two vpmaddwd and two vpaddd.
#include "kernels/dot.h"
#include "kernels/intrin.h"

namespace qllm::cpu::avx2 {
namespace {

constexpr int64_t kOutputs = 64;  // of a block
constexpr int64_t kRun = 256;     // bytes: 64 outputs x 4 inputs
constexpr int64_t kChunkK = 64;   // inputs whose weights (4 KiB) stay in L1 between tiles
constexpr int64_t kSteps = kChunkK / 4;
constexpr int64_t kAhead = 4096;  // bytes that the prefetch runs ahead of the stream
constexpr int64_t kMaxTile = 6;   // tokens that share the decoding of a line

/// x of a chunk, as the pairs that vpmaddwd wants: even then odd, four inputs a step.
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

/// acc[M][8 * kLines] (+)= x[M][64] . w for 8 * kLines outputs of a chunk.
template <int kTokens, int kLines, bool kPrefetch>
inline void tile(const Pairs* pairs, const int8_t* w, int32_t* acc, int64_t ldacc, bool first) {
  __m256i sum[kTokens][kLines];
  for (int t = 0; t < kTokens; ++t) {
    for (int l = 0; l < kLines; ++l) {
      sum[t][l] = first ? _mm256_setzero_si256()
                        : _mm256_load_si256(reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l));
    }
  }
  for (int64_t s = 0; s < kSteps; ++s) {
    const int8_t* run = w + s * kRun;
    if constexpr (kPrefetch) {
      for (int i = 0; i < 4; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(run + kAhead + 64 * i), _MM_HINT_T0);
      }
    }
    __m256i even[kLines];
    __m256i odd[kLines];
    for (int l = 0; l < kLines; ++l) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(run + 32 * l));
      even[l] = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
      odd[l] = _mm256_srai_epi16(v, 8);
    }
    for (int t = 0; t < kTokens; ++t) {
      const __m256i xe = broadcast(pairs[t].even + s);
      const __m256i xo = broadcast(pairs[t].odd + s);
      for (int l = 0; l < kLines; ++l) {
        sum[t][l] = _mm256_add_epi32(sum[t][l], _mm256_madd_epi16(even[l], xe));
        sum[t][l] = _mm256_add_epi32(sum[t][l], _mm256_madd_epi16(odd[l], xo));
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int l = 0; l < kLines; ++l) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc + t * ldacc + 8 * l), sum[t][l]);
    }
  }
}

/// All 64 outputs of a chunk for kTokens tokens, kLines line halves at a time.
template <int kTokens, int kLines>
inline void chunk(const Pairs* pairs, const int8_t* w, int32_t* acc, int64_t ldacc, bool first) {
  tile<kTokens, kLines, true>(pairs, w, acc, ldacc, first);
  for (int o = 8 * kLines; o < kOutputs; o += 8 * kLines) {
    tile<kTokens, kLines, false>(pairs, w + 4 * o, acc + o, ldacc, first);
  }
}

using ChunkFn = void (*)(const Pairs*, const int8_t*, int32_t*, int64_t, bool);

// Registers: kTokens * kLines sums, two for x, up to two for each line half.
constexpr ChunkFn kChunks[kMaxTile + 1] = {nullptr,     chunk<1, 8>, chunk<2, 4>, chunk<3, 2>,
                                           chunk<4, 2>, chunk<5, 2>, chunk<6, 2>};

/// M = 1: eight sums and x straight from memory; nothing is stored between chunks.
void run_one(const DotArgs& args) {
  const __m256i low = _mm256_set1_epi32(0x00ff00ff);
  for (int64_t n = 0; n < args.n; n += kOutputs) {
    const int8_t* w = args.w + n * args.k;
    __m256i sum[8];
    for (int l = 0; l < 8; ++l) sum[l] = _mm256_setzero_si256();
    for (int64_t k = 0; k < args.k; k += 4, w += kRun) {
      uint32_t quad;
      __builtin_memcpy(&quad, args.x + k, sizeof quad);
      const __m256i x = broadcast(&quad);
      const __m256i xe = _mm256_and_si256(x, low);
      const __m256i xo = _mm256_srli_epi16(x, 8);
      for (int i = 0; i < 4; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(w + kAhead + 64 * i), _MM_HINT_T0);
      }
      for (int l = 0; l < 8; ++l) {
        const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + 32 * l));
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
        sum[l] = _mm256_add_epi32(sum[l], _mm256_madd_epi16(even, xe));
        sum[l] = _mm256_add_epi32(sum[l], _mm256_madd_epi16(_mm256_srai_epi16(v, 8), xo));
      }
    }
    for (int l = 0; l < 8; ++l) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(args.acc + n + 8 * l), sum[l]);
    }
  }
}

}  // namespace

void dot_u8s8s32_n64k4_stream(const DotArgs& args) noexcept {
  if (args.m == 1) return run_one(args);
  const int64_t tiles = (args.m + kMaxTile - 1) / kMaxTile;
  Pairs pairs[kMaxTile];
  for (int64_t n = 0; n < args.n; n += kOutputs) {
    for (int64_t k = 0; k < args.k; k += kChunkK) {
      const int8_t* w = args.w + n * args.k + k * kOutputs;
      for (int64_t i = 0; i < tiles; ++i) {  // tiles of nearly equal size: 7 = 4 + 3
        const int64_t m = args.m * i / tiles;
        const int64_t tokens = args.m * (i + 1) / tiles - m;
        for (int64_t t = 0; t < tokens; ++t) expand(args.x + (m + t) * args.ldx + k, &pairs[t]);
        kChunks[tokens](pairs, w, args.acc + m * args.ldacc + n, args.ldacc, k == 0);
      }
    }
  }
}

}  // namespace qllm::cpu::avx2
