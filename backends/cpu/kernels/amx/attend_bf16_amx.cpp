// Attention over keys and values in bf16 on AMX-BF16: x, a query or weights of V, is the sum of two
// bf16 numbers within 2^-18 of it, and both are multiplied: tdpbf16ps makes 16 times the products
// of a fused multiply-add of AVX-512, so eight times remain. One bf16 alone would be off by 2^-9.
// Reasoned; the machine that it was written on has no AMX.
#include "kernels/amx/attend_tiles.h"

namespace qllm::cpu::amx {
namespace {

using Base = AttendImpl<Ops, AttendBf16>;
using Lines = Base::Lines;
constexpr int64_t kGroups = 4;  // of 16 tokens or elements: a tile of sums each
constexpr int64_t kSumLd = kGroups * kTileRows * static_cast<int64_t>(sizeof(float));  // bytes

/// To the nearest bf16, ties to even, in the upper halves; NaN stays NaN.
__m512i upper_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  const auto none = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_mov_epi32(rounded, none, _mm512_set1_epi32(0x7fc00000));
}

/// The upper halves of x without the lower.
__m512 whole_bf16(__m512i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_srli_epi32(x, 16), 16));
}

void store_upper(__m512i x, std::byte* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16)));
}

/// 16 values as two terms.
void part(__m512 x, std::byte* first, std::byte* second) {
  const __m512i term = upper_bf16(x);
  store_upper(term, first);
  store_upper(upper_bf16(_mm512_sub_ps(x, whole_bf16(term))), second);
}

/// Rows of floats, each made into its first terms, then its second.
void part_queries(const AttendTile& t) {
  const int64_t width = Lines::padded(t);
  alignas(64) float row[kMaxWidth];
  for (int64_t r = 0; r < t.rows; ++r) {
    auto* at = reinterpret_cast<std::byte*>(t.scratch.q + r * width);
    __builtin_memcpy(row, at, static_cast<size_t>(width) * sizeof(float));
    for (int64_t d = 0; d < width; d += 16) {
      part(Ops::load(row + d), at + 2 * d, at + 2 * (width + d));
    }
  }
}

void part_weights(const AttendTile& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    float* row = t.scratch.scores + r * kAttendBlock;
    __m512 weights[kAttendBlock / 16];
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; ++i) weights[i] = Ops::load(row + 16 * i);
    auto* at = reinterpret_cast<std::byte*>(row);
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; ++i) part(weights[i], at + 32 * i, at + 32 * i + 2 * kAttendBlock);
  }
}

/// Of groups [0, kCount): tile g (+)= both terms x lines of group g.
template <int kCount, int kGroup = 0>
void add_lines(const Product& p, int64_t unit) {
  p.load_lines<kGroup>(unit);
  dot_bf16<kGroup, kTerm0, kLines + kGroup % 2>();
  dot_bf16<kGroup, kTerm1, kLines + kGroup % 2>();
  if constexpr (kGroup + 1 < kCount) add_lines<kCount, kGroup + 1>(p, unit);
}

/// sums [rows, ld bytes] of groups [0, kCount).
template <int kCount>
void multiply(const Product& p, float* sums, int64_t ld) {
  zero_tile<0>();
  if constexpr (kCount > 1) zero_tile<1>();
  if constexpr (kCount > 2) zero_tile<2>();
  if constexpr (kCount > 3) zero_tile<3>();
  for (int64_t u = 0; u < p.units; u += p.step) {
    p.load_terms(u);
    add_lines<kCount>(p, u);
  }
  store_tile<0>(sums, ld);
  if constexpr (kCount > 1) store_tile<1>(sums + 16, ld);
  if constexpr (kCount > 2) store_tile<2>(sums + 32, ld);
  if constexpr (kCount > 3) store_tile<3>(sums + 48, ld);
}

/// Of all 64 tokens; those that no row sees, stale or not, are left out by weigh().
void find_scores(const AttendTile& t, const AttendBlock& b, const Halves& halves) {
  const int64_t width = Lines::padded(t);
  const int64_t units = Lines::head_units(t);
  const int64_t step = step_units(units);
  configure(halves.rows, step);
  for (int64_t h = 0; h < halves.count; ++h) {
    const int64_t row = halves.begin(h);
    const auto* q = reinterpret_cast<const std::byte*>(t.scratch.q + row * width);
    const Product p = {q,
                       2 * width,
                       4 * width,
                       b.k,
                       units * kAttendLine,
                       units,
                       step,
                       h == 0 ? b.ahead : ptrdiff_t{0}};
    multiply<4>(p, t.scratch.scores + row * kAttendBlock, kSumLd);
  }
}

/// acc = acc factor + sums weight_scale, 16 `groups` elements wide.
void add_sums(const AttendTile& t, const Halves& halves, int64_t half, int64_t group,
              int64_t groups, const float* sums) {
  for (int64_t r = halves.own(half); r < halves.end(half); ++r) {
    const __m512 factor = Ops::set(t.scratch.factor[r]);
    const __m512 scale = Ops::set(t.scratch.weight_scale[r]);
    const float* sum = sums + (r - halves.begin(half)) * kGroups * 16;
    float* acc = t.partial.acc + r * Lines::padded(t) + group * 16;
    for (int64_t i = 0; i < 16 * groups; i += 16) {
      const __m512 kept = Ops::mul(Ops::load(acc + i), factor);
      Ops::store(acc + i, Ops::fma(Ops::load(sum + i), scale, kept));
    }
  }
}

void add_values(const AttendTile& t, const AttendBlock& b, const Halves& halves) {
  constexpr int64_t kUnits = Lines::kTokenUnits;
  const int64_t from = b.begin / (2 * kTileUnits) * kTileUnits;  // units that some row sees
  const int64_t to = (b.end + 2 * kTileUnits - 1) / (2 * kTileUnits) * kTileUnits;
  const int64_t all = Lines::padded(t) / 16;
  configure(halves.rows, kTileUnits);
  alignas(64) float sums[kTileRows][kGroups * 16];
  for (int64_t h = 0; h < halves.count; ++h) {
    const float* weights = t.scratch.scores + halves.begin(h) * kAttendBlock;
    for (int64_t g = 0; g < all; g += kGroups) {
      const Product p = {reinterpret_cast<const std::byte*>(weights + from),
                         2 * kAttendBlock,
                         4 * kAttendBlock,
                         b.v + (g * kUnits + from) * kAttendLine,
                         kUnits * kAttendLine,
                         to - from,
                         kTileUnits,
                         h == 0 ? b.ahead : ptrdiff_t{0}};
      const int64_t groups = all - g < kGroups ? all - g : kGroups;
      switch (groups) {
        case 1:
          multiply<1>(p, sums[0], kSumLd);
          break;
        case 2:
          multiply<2>(p, sums[0], kSumLd);
          break;
        case 3:
          multiply<3>(p, sums[0], kSumLd);
          break;
        default:
          multiply<4>(p, sums[0], kSumLd);
      }
      add_sums(t, halves, h, g, groups, sums[0]);
    }
  }
}

void begin(const AttendTile& t) noexcept {
  Base::begin(t);
  if (many_rows(t)) part_queries(t);
}

void block(const AttendTile& t, const std::byte* kv, const std::byte* next,
           int64_t first) noexcept {
  if (!many_rows(t)) return Base::block(t, kv, next, first);
  AttendBlock b;
  if (!Base::open(t, kv, next, first, &b)) return;
  const Halves halves(t.rows);
  find_scores(t, b, halves);
  Base::Softmax::weigh(t, b);
  part_weights(t);
  add_values(t, b, halves);
  release_tiles();
}

constexpr AttendKernels kKernels = {&begin, &block, &Base::merge, &Base::finish};

}  // namespace

const AttendKernels& attend_bf16() noexcept { return kKernels; }

}  // namespace qllm::cpu::amx
