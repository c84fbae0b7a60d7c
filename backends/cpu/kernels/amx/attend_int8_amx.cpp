// Attention over keys and values in int8 on AMX-INT8: x, a query or weights of V, has 16 bits as in
// the other tiers, 256 h + l with h s8 and l u8. tdpbssd and tdpbusd make exact sums of both, so
// all bits are those of AVX-512. Reasoned; the machine that it was written on has no AMX.
#include "kernels/amx/attend_tiles.h"

namespace qllm::cpu::amx {
namespace {

using Base = AttendImpl<Ops, AttendInt8>;
using Lines = Base::Lines;
constexpr int64_t kGroups = 2;  // of 16 tokens or elements: a tile of sums for h and one for l each

/// Rows of 16-bit values in the order of attend_quantize16, each made into its l, then its h.
void part_queries(const AttendTile& t) {
  const int64_t width = Lines::padded(t);
  alignas(64) uint16_t row[kMaxWidth];
  for (int64_t r = 0; r < t.rows; ++r) {
    auto* at = reinterpret_cast<uint8_t*>(t.scratch.q + r * width / 2);
    __builtin_memcpy(row, at, static_cast<size_t>(width) * 2);
    for (int64_t d = 0; d < width; ++d) {
      const uint16_t x = row[d / 4 * 4 + d % 2 * 2 + d % 4 / 2];  // {q0, q2}, {q1, q3}
      at[d] = static_cast<uint8_t>(x & 0xff);
      at[width + d] = static_cast<uint8_t>(x >> 8);
    }
  }
}

/// The same for the 64 weights of a row.
void part_weights(const AttendTile& t) {
  // Of {q0, q2}, {q1, q3}, twice: the lower bytes in order, then the upper.
  const __m512i order = _mm512_set4_epi32(0x0f0b0d09, 0x07030501, 0x0e0a0c08, 0x06020400);
  const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
  for (int64_t r = 0; r < t.rows; ++r) {
    auto* at = reinterpret_cast<std::byte*>(t.scratch.weights + r * kAttendBlock / 2);
    const __m512i a = _mm512_shuffle_epi8(_mm512_loadu_si512(at), order);
    const __m512i b = _mm512_shuffle_epi8(_mm512_loadu_si512(at + 64), order);
    _mm512_storeu_si512(at, _mm512_permutex2var_epi64(a, even, b));
    _mm512_storeu_si512(at + 64, _mm512_permutex2var_epi64(a, odd, b));
  }
}

/// A tile of sums: of group i / 2, of l or h.
struct Sums {
  alignas(64) int32_t of[2 * kGroups][kTileRows][16];

  /// 256 h + l of a row and group.
  __m512i row(int64_t group, int64_t r) const {
    const __m512i low = _mm512_loadu_si512(of[2 * group][r]);
    const __m512i high = _mm512_loadu_si512(of[2 * group + 1][r]);
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
  }
};

template <int kGroup>
void add_lines(const Product& p, int64_t unit) {
  p.load_lines<kGroup>(unit);
  dot_u8s8<2 * kGroup, kTerm0, kLines + kGroup>();
  dot_s8s8<2 * kGroup + 1, kTerm1, kLines + kGroup>();
}

/// Of two groups, or one.
template <bool kBoth>
void multiply(const Product& p, Sums* sums) {
  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  for (int64_t u = 0; u < p.units; u += p.step) {
    p.load_terms(u);
    add_lines<0>(p, u);
    if constexpr (kBoth) add_lines<1>(p, u);
  }
  store_tile<0>(sums->of[0], 64);
  store_tile<1>(sums->of[1], 64);
  store_tile<2>(sums->of[2], 64);
  store_tile<3>(sums->of[3], 64);
}

void find_scores(const AttendTile& t, const AttendBlock& b, const Halves& halves) {
  const int64_t width = Lines::padded(t);
  const int64_t units = Lines::head_units(t);
  const int64_t step = step_units(units);
  configure(halves.rows, step);
  Sums sums;
  for (int64_t h = 0; h < halves.count; ++h) {
    const int64_t row = halves.begin(h);
    const auto* q = reinterpret_cast<const std::byte*>(t.scratch.q + row * width / 2);
    for (int64_t g = 0; g < kAttendBlock / 16; g += kGroups) {
      const Product p = {q,
                         width,
                         2 * width,
                         b.k + g * units * kAttendLine,
                         units * kAttendLine,
                         units,
                         step,
                         h == 0 ? b.ahead : ptrdiff_t{0}};
      multiply<true>(p, &sums);
      for (int64_t i = 0; i < kGroups; ++i) {
        const int64_t at = (g + i) * 16;
        const __m512 k_scale = Ops::load(b.k_scale + at);
        for (int64_t r = 0; r < halves.rows; ++r) {
          const __m512 scale = Ops::mul(k_scale, Ops::set(t.scratch.q_scale[row + r]));
          Ops::store(t.scratch.scores + (row + r) * kAttendBlock + at,
                     Ops::mul(Ops::to_float(sums.row(i, r)), scale));
        }
      }
    }
  }
}

/// acc = acc factor + sums weight_scale of a group of 16 elements.
void add_sums(const AttendTile& t, const Halves& halves, int64_t half, int64_t group,
              const Sums& sums, int64_t index) {
  for (int64_t r = halves.own(half); r < halves.end(half); ++r) {
    float* acc = t.partial.acc + r * Lines::padded(t) + group * 16;
    const __m512 kept = Ops::mul(Ops::load(acc), Ops::set(t.scratch.factor[r]));
    const __m512 sum = Ops::to_float(sums.row(index, r - halves.begin(half)));
    Ops::store(acc, Ops::fma(sum, Ops::set(t.scratch.weight_scale[r]), kept));
  }
}

void add_values(const AttendTile& t, const AttendBlock& b, const Halves& halves) {
  constexpr int64_t kUnits = Lines::kTokenUnits;
  static_assert(kUnits == kTileUnits);
  const int64_t all = Lines::padded(t) / 16;
  configure(halves.rows, kUnits);
  Sums sums;
  for (int64_t h = 0; h < halves.count; ++h) {
    const uint32_t* weights = t.scratch.weights + halves.begin(h) * kAttendBlock / 2;
    for (int64_t g = 0; g < all; g += kGroups) {
      const Product p = {reinterpret_cast<const std::byte*>(weights),
                         kAttendBlock,
                         2 * kAttendBlock,
                         b.v + g * kUnits * kAttendLine,
                         kUnits * kAttendLine,
                         kUnits,
                         kUnits,
                         h == 0 ? b.ahead : ptrdiff_t{0}};
      const bool both = g + 1 < all;
      both ? multiply<true>(p, &sums) : multiply<false>(p, &sums);
      add_sums(t, halves, h, g, sums, 0);
      if (both) add_sums(t, halves, h, g + 1, sums, 1);
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

const AttendKernels& attend_int8() noexcept { return kKernels; }

}  // namespace qllm::cpu::amx
