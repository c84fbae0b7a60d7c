// The products of attention over a tier's Ops (attend_impl.h): sums over units in each lane, of
// lines read in order, with coefficients that all lanes share. Loops over registers are unrolled by
// pragma.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attend_block.h"
#include "kernels/intrin.h"

namespace qllm::cpu {

/// How a unit of 4 bytes is multiplied: two sums in lanes, over two words of coefficients.
template <class Ops>
struct AttendBf16 {
  using Sum = typename Ops::F;
  static constexpr int64_t kUnit = 2;
  static Sum zero() { return Ops::set(0.0F); }
  static Sum first(const std::byte* line) { return Ops::low(line); }
  static Sum second(const std::byte* line) { return Ops::high(line); }
  static Sum word(const uint32_t* w) { return Ops::splat(w); }
  static Sum add(Sum sum, Sum values, Sum word) { return Ops::fma(values, word, sum); }
};

template <class Ops>
struct AttendInt8 {
  using Sum = typename Ops::I;
  static constexpr int64_t kUnit = 4;
  static Sum zero() { return Ops::zero(); }
  static Sum first(const std::byte* line) { return Ops::even(line); }
  static Sum second(const std::byte* line) { return Ops::odd(line); }
  static Sum word(const uint32_t* w) { return Ops::splat_pairs(w); }
  static Sum add(Sum sum, Sum values, Sum word) { return Ops::dot(sum, values, word); }
};

template <class Ops, template <class> class FormatOf>
struct AttendLines {
  using Format = FormatOf<Ops>;
  using F = typename Ops::F;
  using Sum = typename Format::Sum;
  static constexpr bool kInt8 = Format::kUnit == 4;
  static constexpr int64_t kVectors = kAttendLanes / Ops::kLanes;  // of a line
  static constexpr int64_t kTokenUnits = kAttendBlock / Format::kUnit;

  static int64_t padded(const AttendTile& t) { return (t.head_dim + 15) / 16 * 16; }
  static int64_t head_units(const AttendTile& t) { return padded(t) / Format::kUnit; }

  /// Of the tokens that any row sees, and others of their lines.
  static void find_scores(const AttendTile& t, const AttendBlock& b) {
    for_row_tiles<ScoreTile>(t, b);
  }
  /// Adds the values by their weights to what was found before.
  static void add_values(const AttendTile& t, const AttendBlock& b) {
    for_row_tiles<ValueTile>(t, b);
  }

 private:
  /// Line groups taken together: eight sums hide the latency of an addition to each.
  static constexpr int groups_of(int rows) {
    const int64_t sums = rows * kVectors;
    return sums * 4 <= Ops::kSums ? 4 : sums * 2 <= Ops::kSums ? 2 : 1;
  }
  /// Coefficients of V: in bf16 the weights as they are.
  static const uint32_t* weights(const AttendTile& t) {
    return kInt8 ? t.scratch.weights : reinterpret_cast<const uint32_t*>(t.scratch.scores);
  }

  /// sums[r][l][v] = sum over units [0, units) of line group l times row r's coefficients.
  template <int kRows, int kGroups, bool kAhead>
  struct Sums {
    Sum sum[kRows][kGroups][kVectors];

    [[gnu::always_inline]] void add_all(const uint32_t* words, int64_t ld, const std::byte* lines,
                                        int64_t stride, int64_t units, ptrdiff_t ahead) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int l = 0; l < kGroups; ++l) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sum[r][l][v] = Format::zero();
        }
      }
      for (int64_t u = 0; u < units; ++u)
        add_unit(words + 2 * u, ld, lines + u * 64, stride, ahead);
    }

    [[gnu::always_inline]] void add_unit(const uint32_t* words, int64_t ld, const std::byte* line,
                                         int64_t stride, ptrdiff_t ahead) {
#pragma GCC unroll 4
      for (int l = 0; l < kGroups; ++l) {
        const std::byte* at = line + l * stride;
        if constexpr (kAhead) {
          _mm_prefetch(reinterpret_cast<const char*>(at + ahead), _MM_HINT_T0);
        }
        Sum values[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) values[v] = Format::first(at + v * Ops::kLanes * 4);
        add_values(values, words, ld, l);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) values[v] = Format::second(at + v * Ops::kLanes * 4);
        add_values(values, words + 1, ld, l);
      }
    }

    /// One value of each unit; the other's wait, since registers are few.
    [[gnu::always_inline]] void add_values(const Sum* values, const uint32_t* words, int64_t ld,
                                           int l) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Sum word = Format::word(words + r * ld);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sum[r][l][v] = Format::add(sum[r][l][v], values[v], word);
        }
      }
    }
  };

  /// scores[r][...] of the 16 kGroups tokens from `token` on.
  struct ScoreTile {
    static int64_t begin(const AttendTile&, const AttendBlock& b) { return b.begin / kAttendLanes; }
    static int64_t end(const AttendTile&, const AttendBlock& b) {
      return (b.end + kAttendLanes - 1) / kAttendLanes;
    }
    template <int kRows, int kGroups, bool kAhead>
    static int64_t run(const AttendTile& t, const AttendBlock& b, int64_t row, int64_t group,
                       int64_t end) {
      const int64_t units = head_units(t);
      const uint32_t* words = t.scratch.q + row * 2 * units;
      for (; group + kGroups <= end; group += kGroups) {
        Sums<kRows, kGroups, kAhead> s;
        s.add_all(words, 2 * units, b.k + group * units * 64, units * 64, units, b.ahead);
        store<kRows, kGroups>(t, b, row, group * kAttendLanes, s.sum);
      }
      return group;
    }

    template <int kRows, int kGroups>
    [[gnu::always_inline]] static void store(const AttendTile& t, const AttendBlock& b, int64_t row,
                                             int64_t token, const Sum (*sum)[kGroups][kVectors]) {
      float* scores = t.scratch.scores + row * kAttendBlock + token;
      const float* q_scale = t.scratch.q_scale + row;
      const float* k_scale = b.k_scale + token;
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int l = 0; l < kGroups; ++l) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            const int64_t at = l * kAttendLanes + v * Ops::kLanes;
            F score;
            if constexpr (kInt8) {
              const F scale = Ops::mul(Ops::load(k_scale + at), Ops::set(q_scale[r]));
              score = Ops::mul(Ops::to_float(sum[r][l][v]), scale);
            } else {
              score = sum[r][l][v];
            }
            Ops::store(scores + r * kAttendBlock + at, score);
          }
        }
      }
    }
  };

  /// acc[r][...] of the 16 kGroups elements from 16 `group` on.
  struct ValueTile {
    static int64_t begin(const AttendTile&, const AttendBlock&) { return 0; }
    static int64_t end(const AttendTile& t, const AttendBlock&) { return padded(t) / kAttendLanes; }
    template <int kRows, int kGroups, bool kAhead>
    static int64_t run(const AttendTile& t, const AttendBlock& b, int64_t row, int64_t group,
                       int64_t end) {
      const int64_t from = b.begin / Format::kUnit;
      const int64_t units = (b.end + Format::kUnit - 1) / Format::kUnit - from;
      const uint32_t* words = weights(t) + row * 2 * kTokenUnits + 2 * from;
      float* acc = t.partial.acc + row * padded(t);
      for (; group + kGroups <= end; group += kGroups) {
        Sums<kRows, kGroups, kAhead> s;
        s.add_all(words, 2 * kTokenUnits, b.v + (group * kTokenUnits + from) * 64, kTokenUnits * 64,
                  units, b.ahead);
        add<kRows, kGroups>(t, row, acc + group * kAttendLanes, s.sum);
      }
      return group;
    }

    template <int kRows, int kGroups>
    [[gnu::always_inline]] static void add(const AttendTile& t, int64_t row, float* acc,
                                           const Sum (*sum)[kGroups][kVectors]) {
      const int64_t width = padded(t);
      const float* factors = t.scratch.factor + row;
      const float* scales = t.scratch.weight_scale + row;
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F factor = Ops::set(factors[r]);
        const F scale = Ops::set(scales[r]);
#pragma GCC unroll 4
        for (int l = 0; l < kGroups; ++l) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            float* at = acc + r * width + l * kAttendLanes + v * Ops::kLanes;
            const F kept = Ops::mul(Ops::load(at), factor);
            if constexpr (kInt8) {
              Ops::store(at, Ops::fma(Ops::to_float(sum[r][l][v]), scale, kept));
            } else {
              Ops::store(at, Ops::fma(sum[r][l][v], scale, kept));
            }
          }
        }
      }
    }
  };

  /// All line groups for all rows; the first rows prefetch.
  template <class Tile>
  static void for_row_tiles(const AttendTile& t, const AttendBlock& b) {
    const int64_t tiles = (t.rows + Ops::kRows - 1) / Ops::kRows;
    for (int64_t i = 0; i < tiles; ++i) {  // of nearly equal size
      const int64_t row = t.rows * i / tiles;
      const int64_t rows = t.rows * (i + 1) / tiles - row;
      if (i == 0 && b.ahead != 0) {
        pick_rows<Tile, true>(t, b, row, rows);
      } else {
        pick_rows<Tile, false>(t, b, row, rows);
      }
    }
  }

  template <class Tile, bool kAhead, int kRows = Ops::kRows>
  static void pick_rows(const AttendTile& t, const AttendBlock& b, int64_t row, int64_t rows) {
    if constexpr (kRows > 1) {
      if (rows < kRows) return pick_rows<Tile, kAhead, kRows - 1>(t, b, row, rows);
    }
    constexpr int kGroups = groups_of(kRows);
    const int64_t end = Tile::end(t, b);
    [[maybe_unused]] const int64_t group =
        Tile::template run<kRows, kGroups, kAhead>(t, b, row, Tile::begin(t, b), end);
    if constexpr (kGroups > 1) {
      if (group < end) Tile::template run<kRows, 1, kAhead>(t, b, row, group, end);
    }
  }
};

}  // namespace qllm::cpu
