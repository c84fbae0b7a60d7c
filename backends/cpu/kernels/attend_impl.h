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

#include "kernels/attend_lines.h"
#include "kernels/attend_softmax.h"

namespace qllm::cpu {

template <class Ops, template <class> class FormatOf>
struct AttendImpl {
  using Lines = AttendLines<Ops, FormatOf>;
  using Softmax = AttendSoftmax<Ops, Lines::kInt8>;
  using F = typename Ops::F;

  static void begin(const AttendTile& t) noexcept {
    const int64_t width = Lines::padded(t);
    const float scale = t.scale * kAttendLog2e;
    for (int64_t r = 0; r < t.rows; ++r) {
      const int64_t token = (t.row0 + r) / t.group;
      const float* q = t.q + token * t.ldq + (t.row0 + r) % t.group * t.head_dim;
      float* acc = t.partial.acc + r * width;
      for (int64_t d = 0; d < t.head_dim; ++d) acc[d] = q[d] * scale;
      for (int64_t d = t.head_dim; d < width; ++d) acc[d] = 0.0F;
      uint32_t* words = t.scratch.q + r * 2 * Lines::head_units(t);
      if constexpr (Lines::kInt8) {
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
    Lines::find_scores(t, b);
    Softmax::weigh(t, b);
    Lines::add_values(t, b);
  }

  static void merge(const AttendTile& t, const AttendPartial& other) noexcept {
    const int64_t width = Lines::padded(t);
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
      const float* acc = t.partial.acc + r * Lines::padded(t);
      const float inverse = 1.0F / t.partial.sum[r];
      for (int64_t d = 0; d < t.head_dim; ++d) out[d] = acc[d] * inverse;
    }
  }

  static constexpr AttendKernels table() { return {&begin, &block, &merge, &finish}; }

  /// Where the parts of a block lie and which tokens are seen; false where none is.
  static bool open(const AttendTile& t, const std::byte* kv, const std::byte* next, int64_t first,
                   AttendBlock* b) {
    const int64_t part = Lines::padded(t) * Lines::kTokenUnits * 4;
    b->k = kv;
    b->v = kv + part;
    b->k_scale = reinterpret_cast<const float*>(kv + 2 * part);
    b->v_scale = b->k_scale + kAttendBlock;
    b->ahead = next != nullptr ? next - kv : 0;
    b->first = first;
    b->begin = attend_clamp(t.first_seen(0) - first);
    b->end = attend_clamp(t.last_seen(t.rows - 1) + 1 - first);
    b->whole = t.first_seen(t.rows - 1) <= first && t.last_seen(0) >= first + kAttendBlock - 1;
    if (b->begin >= b->end) return false;
    if constexpr (Lines::kInt8) {
      for (int64_t i = 0; i < 2 * kAttendBlock * 4; i += kAttendLine) {
        prefetch(kv, 2 * part + i, *b);
      }
    }
    return true;
  }

 private:
  static void prefetch(const std::byte* kv, int64_t offset, const AttendBlock& b) {
    if (b.ahead == 0) return;
    _mm_prefetch(reinterpret_cast<const char*>(kv + offset + b.ahead), _MM_HINT_T0);
  }
  static float exp2_one(float x) {
    float lanes[Ops::kLanes];
    Ops::store(lanes, attend_exp2<Ops>(Ops::set(x)));
    return lanes[0];
  }
};

}  // namespace qllm::cpu
