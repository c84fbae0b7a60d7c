// The attention kernels of attend.h, written once; a tier instantiates them with a class `Ops` of
// its own (in its anonymous namespace, or a template over such a class), so that no other tier can
// pick up its code. Ops has
//   F, I                                   vectors of kLanes floats, int32
//   load store set add sub mul div fma min max abs times_pow2 max_lanes sum_lanes
//   select(index, lo, hi, yes, no)         per lane: lo <= index < hi ? yes : no
//   to_float(I), zero()                    int32 to float; I of zeros
//   low, high(const std::byte*)            first, second bf16 of each unit as F
//   even, odd(const std::byte*)            s8 values {0, 2} and {1, 3} of each unit as s16 pairs
//   splat(const uint32_t*)                 F of one word's bits;  splat_pairs: I likewise
//   dot(I sum, I pairs, I words)           sum + products of both s16 of each lane
//   store_pairs(F x[16 / kLanes], words)   rounded to 16 bits, in the order of attend_quantize16
// and kRows, the most rows whose sums registers hold. Loops over registers are unrolled by pragma.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attend.h"
#include "kernels/attend_math.h"
#include "kernels/intrin.h"

namespace qllm::cpu {

inline constexpr int64_t kAttendBlock = 64;   // tokens
inline constexpr int64_t kAttendLanes = 16;   // of a line
inline constexpr int64_t kAttendLine = 64;    // bytes
inline constexpr float kAttendNone = -3e38F;  // the maximum before any token

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

/// One block as it lies.
struct AttendBlock {
  const std::byte* k;
  const std::byte* v;
  const float* k_scale;  // int8 only
  const float* v_scale;
  ptrdiff_t ahead;  // to the block to prefetch, or 0
  int64_t begin;    // tokens [begin, end) that any row sees
  int64_t end;
  bool whole;  // all rows see all tokens
};

template <class Ops, template <class> class FormatOf>
struct AttendImpl {
  using Format = FormatOf<Ops>;
  using F = typename Ops::F;
  using Sum = typename Format::Sum;
  static constexpr bool kInt8 = Format::kUnit == 4;
  static constexpr int64_t kVectors = kAttendLanes / Ops::kLanes;  // of a line
  static constexpr int64_t kTokenUnits = kAttendBlock / Format::kUnit;

  /// Line groups taken together: eight sums hide the latency of an addition to each.
  static constexpr int groups_of(int rows) {
    const int64_t sums = rows * kVectors;
    return sums * 4 <= Ops::kSums ? 4 : sums * 2 <= Ops::kSums ? 2 : 1;
  }
  static int64_t padded(const AttendTile& t) { return (t.head_dim + 15) / 16 * 16; }
  static int64_t head_units(const AttendTile& t) { return padded(t) / Format::kUnit; }

  static void begin(const AttendTile& t) noexcept {
    const int64_t width = padded(t);
    const float scale = t.scale * kAttendLog2e;
    for (int64_t r = 0; r < t.rows; ++r) {
      const int64_t token = (t.row0 + r) / t.group;
      const float* q = t.q + token * t.ldq + (t.row0 + r) % t.group * t.head_dim;
      float* acc = t.partial.acc + r * width;
      for (int64_t d = 0; d < t.head_dim; ++d) acc[d] = q[d] * scale;
      for (int64_t d = t.head_dim; d < width; ++d) acc[d] = 0.0F;
      uint32_t* words = t.scratch.q + r * 2 * head_units(t);
      if constexpr (kInt8) {
        t.scratch.q_scale[r] = attend_quantize16<Ops>(acc, width, words);
      } else {
        __builtin_memcpy(words, acc, static_cast<size_t>(width) * sizeof(float));
      }
      for (int64_t d = 0; d < width; ++d) acc[d] = 0.0F;
      t.partial.max[r] = kAttendNone;
      t.partial.sum[r] = 0.0F;
    }
  }

  static void block(const AttendTile& t, const std::byte* kv, const std::byte* next,
                    int64_t first) noexcept {
    AttendBlock b;
    if (!open(t, kv, next, first, &b)) return;
    for_row_tiles<ScoreTile>(t, b);
    weigh(t, b, first);
    for_row_tiles<ValueTile>(t, b);
  }

  static void merge(const AttendTile& t, const AttendPartial& other) noexcept {
    const int64_t width = padded(t);
    for (int64_t r = 0; r < t.rows; ++r) {
      const bool larger = other.max[r] > t.partial.max[r];
      const float top = larger ? other.max[r] : t.partial.max[r];
      const float own = exp2_one(t.partial.max[r] - top);
      const float its = exp2_one(other.max[r] - top);
      t.partial.max[r] = top;
      t.partial.sum[r] = t.partial.sum[r] * own + other.sum[r] * its;
      float* acc = t.partial.acc + r * width;
      for (int64_t d = 0; d < width; d += Ops::kLanes) {
        const F mine = Ops::mul(Ops::load(acc + d), Ops::set(own));
        const F sum = Ops::fma(Ops::load(other.acc + r * width + d), Ops::set(its), mine);
        Ops::store(acc + d, sum);
      }
    }
  }

  static void finish(const AttendTile& t) noexcept {
    for (int64_t r = 0; r < t.rows; ++r) {
      const int64_t token = (t.row0 + r) / t.group;
      float* out = t.out + token * t.ldout + (t.row0 + r) % t.group * t.head_dim;
      const float* acc = t.partial.acc + r * padded(t);
      const float inverse = 1.0F / t.partial.sum[r];
      for (int64_t d = 0; d < t.head_dim; ++d) out[d] = acc[d] * inverse;
    }
  }

  static constexpr AttendKernels table() { return {&begin, &block, &merge, &finish}; }

  // Parts, for tiers that multiply otherwise.

  /// Where the parts of a block lie and which tokens are seen; false where none is.
  static bool open(const AttendTile& t, const std::byte* kv, const std::byte* next, int64_t first,
                   AttendBlock* b) {
    const int64_t part = padded(t) * kTokenUnits * 4;
    b->k = kv;
    b->v = kv + part;
    b->k_scale = reinterpret_cast<const float*>(kv + 2 * part);
    b->v_scale = b->k_scale + kAttendBlock;
    b->ahead = next != nullptr ? next - kv : 0;
    b->begin = clamp(t.first_seen(0) - first);
    b->end = clamp(t.last_seen(t.rows - 1) + 1 - first);
    b->whole = t.first_seen(t.rows - 1) <= first && t.last_seen(0) >= first + kAttendBlock - 1;
    if (b->begin >= b->end) return false;
    if constexpr (kInt8) {
      for (int64_t i = 0; i < 2 * kAttendBlock * 4; i += kAttendLine) {
        prefetch(kv, 2 * part + i, *b);
      }
    }
    return true;
  }

  /// Scores into weights of V.
  static void weigh(const AttendTile& t, const AttendBlock& b, int64_t first) {
    b.whole ? weigh_rows<true>(t, b, first) : weigh_rows<false>(t, b, first);
  }

 private:
  static int64_t clamp(int64_t token) {
    return token < 0 ? 0 : token < kAttendBlock ? token : kAttendBlock;
  }
  /// Coefficients of V: in bf16 the weights as they are.
  static const uint32_t* weights(const AttendTile& t) {
    return kInt8 ? t.scratch.weights : reinterpret_cast<const uint32_t*>(t.scratch.scores);
  }
  static void prefetch(const std::byte* kv, int64_t offset, const AttendBlock& b) {
    if (b.ahead == 0) return;
    _mm_prefetch(reinterpret_cast<const char*>(kv + offset + b.ahead), _MM_HINT_T0);
  }
  static float exp2_one(float x) {
    float lanes[Ops::kLanes];
    Ops::store(lanes, attend_exp2<Ops>(Ops::set(x)));
    return lanes[0];
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

  /// Scores into weights e^(score - maximum of the block) of V, which wait for nothing but their
  /// own scores; what brings the block and all before it to one maximum is found beside. Rows go
  /// through each pass together: one alone would wait for its maximum, then for its exponentials.
  template <bool kWhole>
  static void weigh_rows(const AttendTile& t, const AttendBlock& b, int64_t first) {
    for (int64_t r = 0; r < t.rows; ++r) {
      if (t.softcap > 0.0F) cap_scores(t, r);
      find_maximum<kWhole>(t, r, first);
    }
    float unit = 1.0F;
    for (int64_t r = 0; r < t.rows; ++r) {
      if constexpr (kInt8) {
        // By what the row's own token sees: what stands behind it is not its business.
        if (r == 0 || (!kWhole && t.begins_token(r))) unit = scale_values<kWhole>(t, b, r, first);
        t.scratch.weight_scale[r] = unit;
      }
      exponentials<kWhole>(t, r, first);
    }
    for (int64_t r = 0; r < t.rows; r += Ops::kLanes) {
      const F old = Ops::load(t.partial.max + r);
      const F top = Ops::load(t.scratch.top + r);
      const F now = Ops::max(old, top);
      const F factor = attend_exp2<Ops>(Ops::sub(old, now));
      F scale = attend_exp2<Ops>(Ops::sub(top, now));
      const F sum = Ops::mul(Ops::load(t.partial.sum + r), factor);
      Ops::store(t.partial.sum + r, Ops::fma(Ops::load(t.scratch.sum + r), scale, sum));
      Ops::store(t.partial.max + r, now);
      Ops::store(t.scratch.factor + r, factor);
      if constexpr (kInt8) scale = Ops::mul(scale, Ops::load(t.scratch.weight_scale + r));
      Ops::store(t.scratch.weight_scale + r, scale);
    }
  }

  /// The block's scales of V, of tokens that row r sees, over a 32767th of their largest, which is
  /// returned: times a weight of at most 1 they are 16-bit values.
  template <bool kWhole>
  static float scale_values(const AttendTile& t, const AttendBlock& b, int64_t r, int64_t first) {
    float* scale = t.scratch.v_scale;
    for (int64_t i = 0; i < kAttendBlock; i += Ops::kLanes) {
      F x = Ops::load(b.v_scale + i);
      if constexpr (!kWhole) x = Seen(t, r, first).select(i, x, 0.0F);
      Ops::store(scale + i, x);
    }
    const float top = attend_largest<Ops>(scale, kAttendBlock);
    const F inverse = Ops::set(attend_inverse16<Ops>(top));
    for (int64_t i = 0; i < kAttendBlock; i += Ops::kLanes) {
      Ops::store(scale + i, Ops::mul(Ops::load(scale + i), inverse));
    }
    return top * (1.0F / 32767.0F);
  }

  /// The tokens of the block that row r sees: [lo, hi).
  struct Seen {
    F lo, hi;
    Seen(const AttendTile& t, int64_t r, int64_t first)
        : lo(Ops::set(static_cast<float>(clamp(t.first_seen(r) - first)))),
          hi(Ops::set(static_cast<float>(clamp(t.last_seen(r) + 1 - first)))) {}
    F select(int64_t i, F yes, float no) const {
      return Ops::select(index_of(i), lo, hi, yes, Ops::set(no));
    }
  };

  static void cap_scores(const AttendTile& t, int64_t r) {
    float* s = t.scratch.scores + r * kAttendBlock;
    for (int64_t i = 0; i < kAttendBlock; i += Ops::kLanes) {
      Ops::store(s + i, attend_softcap<Ops>(Ops::load(s + i), t.softcap));
    }
  }

  template <bool kWhole>
  static void find_maximum(const AttendTile& t, int64_t r, int64_t first) {
    float* s = t.scratch.scores + r * kAttendBlock;
    F top = Ops::set(kAttendNone);
    for (int64_t i = 0; i < kAttendBlock; i += Ops::kLanes) {
      F x = Ops::load(s + i);
      if constexpr (!kWhole) {
        x = Seen(t, r, first).select(i, x, kAttendNone);
        Ops::store(s + i, x);
      }
      top = Ops::max(top, x);
    }
    t.scratch.top[r] = Ops::max_lanes(top);
  }

  template <bool kWhole>
  static void exponentials(const AttendTile& t, int64_t r, int64_t first) {
    float* s = t.scratch.scores + r * kAttendBlock;
    const F shift = Ops::set(t.scratch.top[r]);
    F total = Ops::set(0.0F);
#pragma GCC unroll 4
    for (int64_t i = 0; i < kAttendBlock; i += kAttendLanes) {
      F p[kVectors];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) {
        const int64_t at = i + v * Ops::kLanes;
        p[v] = attend_exp2<Ops>(Ops::sub(Ops::load(s + at), shift));
        if constexpr (!kWhole) p[v] = Seen(t, r, first).select(at, p[v], 0.0F);
        total = Ops::add(total, p[v]);
        if constexpr (kInt8) {
          p[v] = Ops::mul(p[v], Ops::load(t.scratch.v_scale + at));
        } else {
          Ops::store(s + at, p[v]);
        }
      }
      if constexpr (kInt8) Ops::store_pairs(p, t.scratch.weights + r * 2 * kTokenUnits + i / 2);
    }
    t.scratch.sum[r] = Ops::sum_lanes(total);
  }

  static F index_of(int64_t i) {
    float lanes[Ops::kLanes];
    for (int64_t j = 0; j < Ops::kLanes; ++j) lanes[j] = static_cast<float>(i + j);
    return Ops::load(lanes);
  }
};

}  // namespace qllm::cpu
