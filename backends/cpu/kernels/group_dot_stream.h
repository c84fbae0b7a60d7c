// Few tokens: codes are unpacked in registers as they stream from memory, every token taking its
// share. Up to four block columns are read by turns, so that as many streams are on their way at
// once (docs/performance.md: "One stream is not the ceiling"): 256 bytes of each for one token, in
// the order in which they lie, else a block of 32 inputs.
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
  static constexpr int64_t kStreams = 4;

  /// sum[t][l] += codes . x over a run, for kN registers of outputs.
  template <int kTokens, int kN>
  static inline __attribute__((always_inline)) void add_run(const std::byte* run, const uint32_t* x,
                                                            int64_t ldu, V (&sum)[kTokens][kN]) {
    if constexpr (kTokens == 1) {
#pragma GCC unroll 8
      for (int l = 0; l < kN; ++l) {
        V line = T::load(run + l * Base::kLanes * 4);
        pin(line);  // or each part loads it again
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
      stay();  // gcc 12 begins the next part early and runs out of registers
    }
  }

  /// What a tile of tokens has of one column in its turn.
  template <int kTokens>
  struct Column {
    const std::byte* codes;  // of the turn
    V* kept;                 // [kTokens * 64]: sums between the turns of a block
    int32_t* partial;        // [kTokens][64]: sums of the group's earlier blocks
    typename Base::Place place;
  };

  /// What its columns share.
  template <int kTokens>
  struct Block {
    const uint32_t* x;  // [kTokens, ldu], of the turn
    int64_t ldu;
    bool first, last;  // in its group
    GroupScales scales;
    const typename Base::template TokenFactors<kTokens>* tokens;
  };

  /// Asks for the lines of the column's next block, from the byte `offset` on. One token reads
  /// them in the order in which they lie, which the hardware foresees better; strips do not.
  template <int kTokens, int64_t kBytes>
  static inline __attribute__((always_inline)) void ask(const std::byte* codes, int64_t offset) {
    if constexpr (kTokens > 1) {
      const auto* next = reinterpret_cast<const char*>(codes + Base::kBlockBytes + offset);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kBytes; i += 64) _mm_prefetch(next + i, _MM_HINT_T0);
    }
  }

  /// kCount runs of a column, from the first of the block on or to its last, or both.
  template <int kTokens, bool kFirst, bool kLast, int64_t kCount>
  static inline __attribute__((always_inline)) void visit(const Block<kTokens>& block,
                                                          const Column<kTokens>& column) {
    constexpr int kN = T::lines_of(kTokens);
    constexpr int64_t kStrips = Base::kLines / kN;
#pragma GCC unroll 1
    for (int64_t s = 0; s < kStrips; ++s) {
      const int64_t o = s * kN * Base::kLanes;
      V* kept = column.kept + s * kTokens * kN;
      V sum[kTokens][kN];
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
        for (int l = 0; l < kN; ++l) sum[t][l] = kFirst ? T::zero() : T::load(kept + t * kN + l);
      }
#pragma GCC unroll 8
      for (int64_t r = 0; r < kCount; ++r) {
        constexpr int64_t kAsk = Base::kRun / kStrips;
        ask<kTokens, kAsk>(column.codes, (s * kCount + r) * kAsk);
        add_run<kTokens, kN>(column.codes + r * Base::kRun + 4 * o, block.x + r * T::kParts,
                             block.ldu, sum);
      }
      if constexpr (kLast) {
        Base::template carry<kTokens, kN>(column.partial + o, Base::kOutputs, block.first,
                                          block.last, sum);
        if (!block.last) continue;
        Base::template finish_decoding<kTokens, kN>(block.scales, column.place, *block.tokens, o,
                                                    sum);
      } else {
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
          for (int l = 0; l < kN; ++l) T::store(kept + t * kN + l, sum[t][l]);
        }
      }
    }
  }

  /// Sums of the columns of a turn, in L1 while others have theirs.
  template <int kTokens>
  struct Waiting {
    V kept[kStreams][kTokens * Base::kLines];
    alignas(64) int32_t partial[kStreams][kTokens * Base::kOutputs];
  };

  /// Runs [r, r + kCount) of `columns` columns, from the one at `first` on.
  template <int kTokens, bool kFirst, bool kLast, int64_t kCount>
  static inline __attribute__((always_inline)) void turn(Block<kTokens> block,
                                                         Column<kTokens> column, int64_t r,
                                                         int64_t columns, int64_t column_bytes,
                                                         Waiting<kTokens>* waiting) {
    block.x += r * T::kParts;
    column.codes += r * Base::kRun;
#pragma GCC unroll 1
    for (int64_t i = 0; i < columns; ++i) {
      column.kept = waiting->kept[i];
      column.partial = waiting->partial[i];
      visit<kTokens, kFirst, kLast, kCount>(block, column);
      column.codes += column_bytes;
      column.place.record += column_bytes;
      column.place.group += column_bytes;
      column.place.y += Base::kOutputs;
    }
  }

  /// Columns [first, last), at most kStreams, all of K.
  template <int kTokens>
  static void run_columns(const GroupDotArgs& args, const Layout& layout, int64_t first,
                          int64_t last) {
    Waiting<kTokens> waiting;
    alignas(64) uint32_t wide[kTokens][Base::kUnits];
    for (int64_t t = 0; t < kTokens; ++t) {
      float* y = args.y + t * args.ldy;
      for (int64_t o = first * Base::kOutputs; o < last * Base::kOutputs; ++o) y[o] = 0.0F;
    }
    const int64_t bytes = layout.column_bytes;
    const int64_t columns = last - first;
    const std::byte* w = args.w + first * bytes;
    float* y = args.y + first * Base::kOutputs;
    Block<kTokens> block{};
    block.ldu = T::kWideX ? Base::kUnits : args.ldx / 4;
    block.scales = layout.scales;
    const int8_t* x = args.x;
    for (int64_t g = 0; g < layout.groups; ++g) {
      const typename Base::template TokenFactors<kTokens> tokens(args, g);
      block.tokens = &tokens;
      Column<kTokens> column{layout.codes(w, g),
                             nullptr,
                             nullptr,
                             {layout.record(w, g), layout.group(w, g), y, args.ldy}};
      for (int64_t b = 0; b < layout.blocks; ++b) {
        block.x = Base::widen(x, Base::kBlockInputs, wide[0]);
        for (int64_t t = 1; t < kTokens; ++t) {
          Base::widen(x + t * args.ldx, Base::kBlockInputs, wide[t]);
        }
        block.first = b == 0;
        block.last = b + 1 == layout.blocks;
        if constexpr (kTokens > 1) {
          turn<kTokens, true, true, Base::kRuns>(block, column, 0, columns, bytes, &waiting);
        } else {
          turn<1, true, false, 1>(block, column, 0, columns, bytes, &waiting);
          for (int64_t r = 1; r + 1 < Base::kRuns; ++r) {
            turn<1, false, false, 1>(block, column, r, columns, bytes, &waiting);
          }
          turn<1, false, true, 1>(block, column, Base::kRuns - 1, columns, bytes, &waiting);
        }
        x += Base::kBlockInputs;
        column.codes += Base::kBlockBytes;
      }
    }
  }

  template <int kTokens>
  static void tile(const GroupDotArgs& args, const Layout& layout) {
    const int64_t columns = args.n / Base::kOutputs;
    const int64_t turns = (columns + kStreams - 1) / kStreams;
    for (int64_t i = 0; i < turns; ++i) {
      run_columns<kTokens>(args, layout, columns * i / turns, columns * (i + 1) / turns);
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
