// The softmax of attention over a block (attend_impl.h): scores into weights of V, and what brings
// the block and all before it to one maximum.
#pragma once

#include <cstdint>

#include "kernels/attend_block.h"
#include "kernels/attend_math.h"

namespace qllm::cpu {

template <class Ops, bool kInt8>
struct AttendSoftmax {
  using F = typename Ops::F;
  static constexpr int64_t kVectors = kAttendLanes / Ops::kLanes;  // of a line
  static constexpr int64_t kWeightWords = kAttendBlock / 2;        // of a row, int8

  /// Leaves weights, sum, top, weight_scale, factor and the running maximum and sum.
  static void weigh(const AttendTile& t, const AttendBlock& b) {
    b.whole ? weigh_rows<true>(t, b) : weigh_rows<false>(t, b);
  }

 private:
  /// Scores into weights e^(score - maximum of the block) of V, which wait for nothing but their
  /// own scores; what brings the block and all before it to one maximum is found beside. Rows go
  /// through each pass together: one alone would wait for its maximum, then for its exponentials.
  template <bool kWhole>
  static void weigh_rows(const AttendTile& t, const AttendBlock& b) {
    for (int64_t r = 0; r < t.rows; ++r) {
      if (t.softcap > 0.0F) cap_scores(t, r);
      find_maximum<kWhole>(t, b, r);
    }
    float unit = 1.0F;
    for (int64_t r = 0; r < t.rows; ++r) {
      if constexpr (kInt8) {
        // By what the row's own token sees: what stands behind it is not its business.
        if (r == 0 || (!kWhole && t.begins_token(r))) unit = scale_values<kWhole>(t, b, r);
        t.scratch.weight_scale[r] = unit;
      }
      exponentials<kWhole>(t, b, r);
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
  static float scale_values(const AttendTile& t, const AttendBlock& b, int64_t r) {
    float* scale = t.scratch.v_scale;
    for (int64_t i = 0; i < kAttendBlock; i += Ops::kLanes) {
      F x = Ops::load(b.v_scale + i);
      if constexpr (!kWhole) x = Seen(t, r, b.first).select(i, x, 0.0F);
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
        : lo(Ops::set(static_cast<float>(attend_clamp(t.first_seen(r) - first)))),
          hi(Ops::set(static_cast<float>(attend_clamp(t.last_seen(r) + 1 - first)))) {}
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
  static void find_maximum(const AttendTile& t, const AttendBlock& b, int64_t r) {
    float* s = t.scratch.scores + r * kAttendBlock;
    F top = Ops::set(kAttendNone);
    for (int64_t i = 0; i < kAttendBlock; i += Ops::kLanes) {
      F x = Ops::load(s + i);
      if constexpr (!kWhole) {
        x = Seen(t, r, b.first).select(i, x, kAttendNone);
        Ops::store(s + i, x);
      }
      top = Ops::max(top, x);
    }
    t.scratch.top[r] = Ops::max_lanes(top);
  }

  template <bool kWhole>
  static void exponentials(const AttendTile& t, const AttendBlock& b, int64_t r) {
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
        if constexpr (!kWhole) p[v] = Seen(t, r, b.first).select(at, p[v], 0.0F);
        total = Ops::add(total, p[v]);
        if constexpr (kInt8) {
          p[v] = Ops::mul(p[v], Ops::load(t.scratch.v_scale + at));
        } else {
          Ops::store(s + at, p[v]);
        }
      }
      if constexpr (kInt8) Ops::store_pairs(p, t.scratch.weights + r * kWeightWords + i / 2);
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
