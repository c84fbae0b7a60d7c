// The kernels of group_dot.h, written once; a tier passes its few instructions.
//
// A tier has one class per width of code, in its own anonymous namespace, so that no instantiation
// can be picked up by another tier's object:
//   V, F                               registers of kLanes s32 and f32, one lane per output
//   kBits                              4 or 8
//   kParts                             factors that a register of packed codes splits into
//   kWideX                             x as pairs of s16 (x0, x2) and (x1, x3) instead of 4 x s8
//   kFold                              sums wrap beyond 32 inputs: fold() is due after each block
//   split(V codes, int part) -> V      a factor
//   dot(V sum, V factor, V x) -> V     sum + factor . x, x one dword in all lanes
//   fold(V sum) -> V                   the sums as s32
//   load, store, zero, add, sub, shift_left<n>, broadcast, to_float, and for F: load_f, load_f16,
//   load_u8, store_f, broadcast_f, mul, fma, fnma
// A *block* is 32 inputs of 64 outputs; a group is one, two or four of them. Group sums are exact
// in s32, then y += x_scale (scale dot + min X) in float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/group_dot.h"
#include "kernels/intrin.h"

namespace qllm::cpu {

template <class T>
struct GroupDot {
  using V = typename T::V;
  using F = typename T::F;
  static constexpr int64_t kOutputs = 64;
  static constexpr int64_t kBlockInputs = 32;
  static constexpr int64_t kRun = 256;  // bytes: 64 outputs x 4 or 8 inputs
  static constexpr int64_t kLanes = T::kLanes;
  static constexpr int kLines = 64 / T::kLanes;  // registers that hold 64 outputs
  static constexpr int64_t kBlockBytes = kOutputs * kBlockInputs * T::kBits / 8;
  static constexpr int64_t kRuns = kBlockBytes / kRun;
  static constexpr int64_t kUnits = kRuns * T::kParts;      // dwords of x, and factors, of a block
  static constexpr int kZeroShift = T::kBits == 4 ? 3 : 7;  // zero = 8 or 128

  /// Where the pieces of a record lie (quant/group.h), with shifts for divisions.
  struct Layout {
    explicit Layout(const GroupDotArgs& args)
        : scales(args.format.scales), k(args.k), blocks(args.format.group / kBlockInputs) {
      const int64_t codes = blocks * kBlockBytes;
      record_shift = scales == GroupScales::k_quant ? 3 : 0;
      head = scales == GroupScales::f16 ? 128 : 256;
      group_head = scales == GroupScales::k_quant ? 128 : 0;
      group_bytes = group_head + codes;
      record_bytes = head + (group_bytes << record_shift);
      groups = k / (blocks * kBlockInputs);
      column_bytes = (groups >> record_shift) * record_bytes;
    }
    const std::byte* record(const std::byte* column, int64_t g) const {
      return column + (g >> record_shift) * record_bytes;
    }
    const std::byte* group(const std::byte* column, int64_t g) const {
      return record(column, g) + head + (g & ((1 << record_shift) - 1)) * group_bytes;
    }
    const std::byte* codes(const std::byte* column, int64_t g) const {
      return group(column, g) + group_head;
    }
    bool has_min() const { return scales != GroupScales::f16; }

    GroupScales scales;
    int64_t k, blocks, groups = 0;
    int record_shift = 0;
    int64_t head = 0, group_head = 0, group_bytes = 0, record_bytes = 0, column_bytes = 0;
  };

  struct alignas(64) Scales {
    float scale[kOutputs];
    float min[kOutputs];
  };

  static __m256 halves(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static __m256 bytes(const std::byte* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }

  /// The scales of group g as floats.
  static void decode(const Layout& layout, const std::byte* column, int64_t g, Scales* out) {
    const std::byte* record = layout.record(column, g);
    const std::byte* group = layout.group(column, g);
    for (int64_t o = 0; o < kOutputs; o += 8) {
      __m256 scale = halves(record + 2 * o);
      if (layout.has_min()) {
        __m256 min = halves(record + 128 + 2 * o);
        if (layout.scales == GroupScales::k_quant) {
          scale = _mm256_mul_ps(scale, bytes(group + o));
          min = _mm256_mul_ps(min, bytes(group + 64 + o));
          min = _mm256_sub_ps(_mm256_setzero_ps(), min);
        }
        _mm256_store_ps(out->min + o, min);
      }
      _mm256_store_ps(out->scale + o, scale);
    }
  }

  /// x as the factors want it: dwords of four s8, or of pairs of s16. `units` of them.
  static const uint32_t* widen(const int8_t* x, int64_t inputs, uint32_t* wide) {
    if constexpr (T::kWideX) {
      for (int64_t i = 0; i < inputs; i += 4) {
        wide[i / 2] = pair(x[i], x[i + 2]);
        wide[i / 2 + 1] = pair(x[i + 1], x[i + 3]);
      }
      return wide;
    } else {
      return reinterpret_cast<const uint32_t*>(x);
    }
  }
  static uint32_t pair(int8_t low, int8_t high) {
    return static_cast<uint16_t>(low) | static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16;
  }

  template <int kTokens, int kN>
  static inline __attribute__((always_inline)) void clear(V (&sum)[kTokens][kN]) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
      for (int l = 0; l < kN; ++l) sum[t][l] = T::zero();
    }
  }

  /// Folds the sums of a block and adds those of the group's earlier blocks, which wait in `kept`
  /// [kTokens, ld]; leaves them there unless the block is the last.
  template <int kTokens, int kN>
  static inline __attribute__((always_inline)) void carry(int32_t* kept, int64_t ld, bool first,
                                                          bool last, V (&sum)[kTokens][kN]) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
      for (int l = 0; l < kN; ++l) {
        int32_t* place = kept + t * ld + l * kLanes;
        sum[t][l] = T::fold(sum[t][l]);
        if (!first) sum[t][l] = T::add(sum[t][l], T::load(place));
        if (!last) T::store(place, sum[t][l]);
      }
    }
  }

  /// What a tile of tokens needs beside its sums once a group is complete.
  struct Finish {
    const float* x_scale;  // [tokens, ldg], at the group
    const int32_t* x_sum;  // [tokens, ldg], at the group
    int64_t ldg;
    const Scales* scales;  // of the group
    bool has_min;
    float* y;  // [tokens, ldy], at the column
    int64_t ldy;
  };

  /// What the tokens of a tile bring to a group, the same for all its columns.
  template <int kTokens>
  struct TokenFactors {
    TokenFactors(const GroupDotArgs& args, int64_t g) {
      for (int64_t t = 0; t < kTokens; ++t) {
        const int32_t x_sum = args.x_sum[t * args.ldg + g];
        scale[t] = args.x_scale[t * args.ldg + g];
        sum[t] = static_cast<float>(x_sum);
        zero[t] = x_sum * (1 << kZeroShift);
      }
    }
    float scale[kTokens];
    float sum[kTokens];     // X
    int32_t zero[kTokens];  // zero X
  };

  /// Where the scales of a column's group are, and the column's outputs.
  struct Place {
    const std::byte* record;
    const std::byte* group;
    float* y;  // [tokens, ldy]
    int64_t ldy;
  };

  template <GroupScales kScales, int kTokens, int kN>
  static inline __attribute__((always_inline)) void finish_as(const Place& place,
                                                              const TokenFactors<kTokens>& tokens,
                                                              int64_t o, V (&sum)[kTokens][kN]) {
    const std::byte* r = place.record + 2 * o;
    const std::byte* s = place.group + o;
#pragma GCC unroll 8
    for (int l = 0; l < kN; ++l) {
      F scale = T::load_f16(r + 2 * l * kLanes);
      F min = scale;
      if constexpr (kScales != GroupScales::f16) min = T::load_f16(r + 128 + 2 * l * kLanes);
      if constexpr (kScales == GroupScales::k_quant) {
        scale = T::mul(scale, T::load_u8(s + l * kLanes));
        min = T::mul(min, T::load_u8(s + 64 + l * kLanes));
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        F v;
        if constexpr (kScales == GroupScales::f16) {
          v = T::mul(T::to_float(T::sub(sum[t][l], T::broadcast(tokens.zero + t))), scale);
        } else {
          const F x_sum = T::broadcast_f(tokens.sum + t);
          v = T::mul(T::to_float(sum[t][l]), scale);
          v = kScales == GroupScales::k_quant ? T::fnma(min, x_sum, v) : T::fma(min, x_sum, v);
        }
        float* y = place.y + t * place.ldy + o + l * kLanes;
        T::store_f(T::fma(T::broadcast_f(tokens.scale + t), v, T::load_f(y)), y);
      }
    }
  }

  /// As finish(), the scales decoded on the way and in registers only.
  template <int kTokens, int kN>
  static inline __attribute__((always_inline)) void finish_decoding(
      GroupScales scales, const Place& place, const TokenFactors<kTokens>& tokens, int64_t o,
      V (&sum)[kTokens][kN]) {
    switch (scales) {
      case GroupScales::f16:
        return finish_as<GroupScales::f16, kTokens, kN>(place, tokens, o, sum);
      case GroupScales::f16_min:
        return finish_as<GroupScales::f16_min, kTokens, kN>(place, tokens, o, sum);
      case GroupScales::k_quant:
        return finish_as<GroupScales::k_quant, kTokens, kN>(place, tokens, o, sum);
    }
  }

  /// y[t][o + lanes] += x_scale (scale (sum - zero X) + min X)
  template <int kTokens, int kN>
  static inline __attribute__((always_inline)) void finish(const Finish& f, int64_t o,
                                                           V (&sum)[kTokens][kN]) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const V x_sum = T::broadcast(f.x_sum + t * f.ldg);
      const F x_scale = T::broadcast_f(f.x_scale + t * f.ldg);
      float* y = f.y + t * f.ldy + o;
#pragma GCC unroll 8
      for (int l = 0; l < kN; ++l) {
        const F scale = T::load_f(f.scales->scale + o + l * kLanes);
        F v;
        if (f.has_min) {
          const F min = T::load_f(f.scales->min + o + l * kLanes);
          v = T::fma(min, T::to_float(x_sum), T::mul(T::to_float(sum[t][l]), scale));
        } else {
          const V zero = T::template shift_left<kZeroShift>(x_sum);
          v = T::mul(T::to_float(T::sub(sum[t][l], zero)), scale);
        }
        T::store_f(T::fma(x_scale, v, T::load_f(y + l * kLanes)), y + l * kLanes);
      }
    }
  }
};

}  // namespace qllm::cpu
