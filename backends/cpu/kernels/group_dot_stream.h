// Few tokens: codes are unpacked in registers as they stream from memory, every token taking its
// share. Up to four block columns are read by turns, a block of 32 inputs each, so that as many
// streams are on their way at once (docs/performance.md: "One stream is not the ceiling").
#pragma once

#include "kernels/group_dot_impl.h"

namespace qllm::cpu {

/// T as in group_dot_impl.h, and lines_of(tokens): registers of outputs that its sums allow at
/// once.
template <class T, int kMaxTokens>
struct GroupDotStream {
  using Base = GroupDot<T>;
  using V = typename T::V;
  using Layout = typename Base::Layout;
  using Scales = typename Base::Scales;
  static constexpr int64_t kStreams = 4;

  /// sum[t][l] += codes . x over a run, for kN registers of outputs.
  template <int kTokens, int kN>
  static inline __attribute__((always_inline)) void add_run(const std::byte* run, const uint32_t* x,
                                                            int64_t ldu, V (&sum)[kTokens][kN]) {
    if constexpr (kTokens == 1) {
#pragma GCC unroll 8
      for (int l = 0; l < kN; ++l) {
        const V line = T::load(run + l * Base::kLanes * 4);
#pragma GCC unroll 2
        for (int p = 0; p < T::kParts; ++p) {
          sum[0][l] = T::dot(sum[0][l], T::split(line, p), T::broadcast(x + p));
        }
      }
      return;
    }
#pragma GCC unroll 2
    for (int p = 0; p < T::kParts; ++p) {
      V w[kN];
#pragma GCC unroll 8
      for (int l = 0; l < kN; ++l) w[l] = T::split(T::load(run + l * Base::kLanes * 4), p);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const V v = T::broadcast(x + t * ldu + p);
#pragma GCC unroll 8
        for (int l = 0; l < kN; ++l) sum[t][l] = T::dot(sum[t][l], w[l], v);
      }
    }
  }

  /// One block of one column; `partial` [kTokens][64] holds the sums of a group's earlier blocks.
  template <int kTokens>
  static void visit(const std::byte* codes, const uint32_t* x, int64_t ldu, int32_t* partial,
                    bool first, bool last, const typename Base::Finish& finish) {
    constexpr int kN = T::lines_of(kTokens);
    for (int64_t o = 0; o < Base::kOutputs; o += kN * Base::kLanes) {
      V sum[kTokens][kN];
      Base::template clear<kTokens, kN>(sum);
#pragma GCC unroll 2
      for (int64_t r = 0; r < Base::kRuns; ++r) {
        add_run<kTokens, kN>(codes + r * Base::kRun + 4 * o, x + r * T::kParts, ldu, sum);
      }
      Base::template carry<kTokens, kN>(partial + o, Base::kOutputs, first, last, sum);
      if (last) Base::template finish<kTokens, kN>(finish, o, sum);
    }
  }

  /// Columns [first, last), at most kStreams, all of K.
  template <int kTokens>
  static void turn(const GroupDotArgs& args, const Layout& layout, int64_t first, int64_t last) {
    alignas(64) int32_t partial[kStreams][kTokens * Base::kOutputs];
    alignas(64) uint32_t wide[kTokens][Base::kUnits];
    Scales scales;
    for (int64_t t = 0; t < kTokens; ++t) {
      float* y = args.y + t * args.ldy;
      for (int64_t o = first * Base::kOutputs; o < last * Base::kOutputs; ++o) y[o] = 0.0F;
    }
    const uint32_t* x = nullptr;
    int64_t ldu = T::kWideX ? Base::kUnits : args.ldx / 4;
    for (int64_t g = 0, k = 0; g < layout.groups; ++g) {
      for (int64_t b = 0; b < layout.blocks; ++b, k += Base::kBlockInputs) {
        x = Base::widen(args.x + k, Base::kBlockInputs, wide[0]);
        for (int64_t t = 1; t < kTokens; ++t) {
          Base::widen(args.x + t * args.ldx + k, Base::kBlockInputs, wide[t]);
        }
        const bool complete = b + 1 == layout.blocks;
        for (int64_t c = first; c < last; ++c) {
          const std::byte* column = args.w + c * layout.column_bytes;
          if (complete) Base::decode(layout, column, g, &scales);
          visit<kTokens>(layout.codes(column, g) + b * Base::kBlockBytes, x, ldu,
                         partial[c - first], b == 0, complete,
                         {args.x_scale + g, args.x_sum + g, args.ldg, &scales, layout.has_min(),
                          args.y + c * Base::kOutputs, args.ldy});
        }
      }
    }
  }

  /// One token and one column, a run at a time.
  struct Column {
    typename Base::One one;  // at the group
    const std::byte* codes;  // of the block
    V* kept;                 // [64]: sums between the runs of a block
    int32_t* partial;        // [64]: sums of the group's earlier blocks
    bool first, last;        // the block in its group
  };

  /// Run r of a block: its sums wait in L1 while other columns have their turn.
  template <bool kFirst, bool kLast>
  static inline __attribute__((always_inline)) void visit_run(const Layout& layout, const Column& c,
                                                              int64_t r, const uint32_t* x) {
    V sum[1][Base::kLines];
#pragma GCC unroll 8
    for (int l = 0; l < Base::kLines; ++l) sum[0][l] = kFirst ? T::zero() : T::load(c.kept + l);
    add_run<1, Base::kLines>(c.codes + r * Base::kRun, x + r * T::kParts, 0, sum);
    if constexpr (kLast) {
      Base::template carry<1, Base::kLines>(c.partial, 0, c.first, c.last, sum);
      if (c.last) Base::finish_one(layout, c.one, sum[0]);
    } else {
#pragma GCC unroll 8
      for (int l = 0; l < Base::kLines; ++l) T::store(c.kept + l, sum[0][l]);
    }
  }

  /// As turn(), for one token: the columns take turns after each run of 256 bytes.
  static void turn_one(const GroupDotArgs& args, const Layout& layout, int64_t first,
                       int64_t last) {
    V kept[kStreams][Base::kLines];
    alignas(64) int32_t partial[kStreams][Base::kOutputs];
    alignas(64) uint32_t wide[Base::kUnits];
    for (int64_t o = first * Base::kOutputs; o < last * Base::kOutputs; ++o) args.y[o] = 0.0F;
    for (int64_t g = 0, k = 0; g < layout.groups; ++g) {
      const std::byte* record = layout.record(args.w, g);
      const std::byte* group = layout.group(args.w, g);
      for (int64_t b = 0; b < layout.blocks; ++b, k += Base::kBlockInputs) {
        const uint32_t* x = Base::widen(args.x + k, Base::kBlockInputs, wide);
        const std::byte* codes = group + layout.group_head + b * Base::kBlockBytes;
#pragma GCC unroll 8
        for (int64_t r = 0; r < Base::kRuns; ++r) {
          for (int64_t c = first; c < last; ++c) {
            const int64_t at = c * layout.column_bytes;
            const Column column{{record + at, group + at, args.x_scale + g, args.x_sum + g,
                                 args.y + c * Base::kOutputs},
                                codes + at,
                                kept[c - first],
                                partial[c - first],
                                b == 0,
                                b + 1 == layout.blocks};
            if (r == 0) {
              visit_run<true, false>(layout, column, r, x);
            } else if (r + 1 < Base::kRuns) {
              visit_run<false, false>(layout, column, r, x);
            } else {
              visit_run<false, true>(layout, column, r, x);
            }
          }
        }
      }
    }
  }

  template <int kTokens>
  static void tile(const GroupDotArgs& args, const Layout& layout) {
    const int64_t columns = args.n / Base::kOutputs;
    const int64_t turns = (columns + kStreams - 1) / kStreams;
    for (int64_t i = 0; i < turns; ++i) {
      if constexpr (kTokens == 1) {
        turn_one(args, layout, columns * i / turns, columns * (i + 1) / turns);
      } else {
        turn<kTokens>(args, layout, columns * i / turns, columns * (i + 1) / turns);
      }
    }
  }

  template <int kTokens = kMaxTokens>
  static void tile_of(int64_t tokens, const GroupDotArgs& args, const Layout& layout) {
    if constexpr (kTokens > 1) {
      if (tokens < kTokens) return tile_of<kTokens - 1>(tokens, args, layout);
    }
    tile<kTokens>(args, layout);
  }

  static void run(const GroupDotArgs& args) {
    const Layout layout(args);
    const int64_t tiles = (args.m + kMaxTokens - 1) / kMaxTokens;
    for (int64_t i = 0; i < tiles; ++i) {  // of nearly equal size
      const int64_t m = args.m * i / tiles;
      GroupDotArgs part = args;
      part.x += m * args.ldx;
      part.x_scale += m * args.ldg;
      part.x_sum += m * args.ldg;
      part.y += m * args.ldy;
      tile_of(args.m * (i + 1) / tiles - m, part, layout);
    }
  }
};

}  // namespace qllm::cpu
