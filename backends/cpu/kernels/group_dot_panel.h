// Many tokens: the codes of a panel, 64 outputs x up to kPanelInputs, are unpacked once into L1
// with their scales as floats, and every token multiplies against them. The packed bytes of the
// next panel are prefetched meanwhile, evenly spread.
#pragma once

#include "kernels/group_dot_impl.h"

namespace qllm::cpu {

/// T as in group_dot_impl.h; tiles of up to kMaxTokens tokens x kN registers of outputs.
template <class T, int kMaxTokens, int kN>
struct GroupDotPanel {
  using Base = GroupDot<T>;
  using V = typename T::V;
  using Layout = typename Base::Layout;
  using Scales = typename Base::Scales;
  static constexpr int64_t kPanelInputs = T::kWideX ? 128 : 256;  // 16 KiB of factors
  static constexpr int64_t kPanelBlocks = kPanelInputs / Base::kBlockInputs;
  static constexpr int64_t kPanelUnits = kPanelBlocks * Base::kUnits;
  static constexpr int64_t kChunks = Base::kLines / kN;  // of outputs

  struct alignas(64) Panel {
    V factors[kChunks][kPanelUnits][kN];  // read linearly by a tile
    Scales scales[kPanelBlocks];
    int32_t kept[kMaxTokens * kN * Base::kLanes];  // sums of a group between its blocks
    int64_t first, groups;
  };

  /// Lines to prefetch, a few at each group of a tile.
  struct Ahead {
    const std::byte* next;
    const std::byte* end;
    int64_t step;  // bytes
    void go() {
      for (int64_t i = 0; i < step && next < end; i += 64, next += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T0);
      }
    }
  };

  static void unpack(const Layout& layout, const std::byte* column, Panel* panel) {
    int64_t unit = 0;
    for (int64_t g = 0; g < panel->groups; ++g) {
      Base::decode(layout, column, panel->first + g, &panel->scales[g]);
      const std::byte* codes = layout.codes(column, panel->first + g);
      for (int64_t r = 0; r < layout.blocks * Base::kRuns; ++r, unit += T::kParts) {
#pragma GCC unroll 8
        for (int l = 0; l < Base::kLines; ++l) {
          const V line = T::load(codes + r * Base::kRun + l * Base::kLanes * 4);
#pragma GCC unroll 2
          for (int p = 0; p < T::kParts; ++p) {
            T::store(&panel->factors[l / kN][unit + p][l % kN], T::split(line, p));
          }
        }
      }
    }
  }

  /// sum += factors . x over `units`.
  template <int kTokens>
  static inline __attribute__((always_inline)) void multiply(const V (*factors)[kN],
                                                             const uint32_t* x, int64_t ldu,
                                                             int64_t units, V (&sum)[kTokens][kN]) {
#pragma GCC unroll 4
    for (int64_t u = 0; u < units; ++u) {
      V w[kN];
#pragma GCC unroll 8
      for (int l = 0; l < kN; ++l) w[l] = T::load(&factors[u][l]);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const V v = T::broadcast(x + t * ldu + u);
#pragma GCC unroll 8
        for (int l = 0; l < kN; ++l) sum[t][l] = T::dot(sum[t][l], w[l], v);
      }
    }
  }

  /// One group of a tile: sums that may not grow over blocks are folded after each.
  template <int kTokens>
  static inline __attribute__((always_inline)) void group(const V (*factors)[kN], const uint32_t* x,
                                                          int64_t ldu, int64_t blocks,
                                                          int32_t* kept, V (&sum)[kTokens][kN]) {
    if constexpr (!T::kFold) {
      Base::template clear<kTokens, kN>(sum);
      return multiply<kTokens>(factors, x, ldu, blocks * Base::kUnits, sum);
    } else {
      int64_t b = 0;
      do {
        Base::template clear<kTokens, kN>(sum);
        multiply<kTokens>(factors + b * Base::kUnits, x + b * Base::kUnits, ldu, Base::kUnits, sum);
        Base::template carry<kTokens, kN>(kept, kN * Base::kLanes, b == 0, b + 1 == blocks, sum);
      } while (++b < blocks);
    }
  }

  /// kTokens tokens against a panel: all chunks of outputs, all groups.
  template <int kTokens>
  static void tile(const GroupDotArgs& args, const Layout& layout, Panel* panel, const uint32_t* x,
                   int64_t ldu, Ahead* ahead) {
    const int64_t units = layout.blocks * Base::kUnits;  // of a group
    for (int64_t c = 0; c < kChunks; ++c) {
      for (int64_t g = 0; g < panel->groups; ++g) {
        V sum[kTokens][kN];
        group<kTokens>(panel->factors[c] + g * units, x + g * units, ldu, layout.blocks,
                       panel->kept, sum);
        ahead->go();
        const int64_t at = panel->first + g;
        Base::template finish<kTokens, kN>({args.x_scale + at, args.x_sum + at, args.ldg,
                                            &panel->scales[g], layout.has_min(), args.y, args.ldy},
                                           c * kN * Base::kLanes, sum);
      }
    }
  }

  template <int kTokens = kMaxTokens>
  static void tile_of(int64_t tokens, const GroupDotArgs& args, const Layout& layout, Panel* panel,
                      const uint32_t* x, int64_t ldu, Ahead* ahead) {
    if constexpr (kTokens > 1) {
      if (tokens < kTokens) {
        return tile_of<kTokens - 1>(tokens, args, layout, panel, x, ldu, ahead);
      }
    }
    tile<kTokens>(args, layout, panel, x, ldu, ahead);
  }

  /// All tokens against a panel of the column at args.y, in tiles of nearly equal size.
  static void multiply_panel(const GroupDotArgs& args, const Layout& layout, Panel* panel,
                             Ahead* ahead) {
    alignas(64) uint32_t wide[kMaxTokens][kPanelUnits];
    const int64_t tiles = (args.m + kMaxTokens - 1) / kMaxTokens;
    const int64_t inputs = panel->groups * layout.blocks * Base::kBlockInputs;
    const int64_t k = panel->first * layout.blocks * Base::kBlockInputs;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t m = args.m * i / tiles;
      const int64_t tokens = args.m * (i + 1) / tiles - m;
      GroupDotArgs part = args;
      part.x_scale += m * args.ldg;
      part.x_sum += m * args.ldg;
      part.y += m * args.ldy;
      const int8_t* row = args.x + m * args.ldx + k;
      const uint32_t* x = Base::widen(row, inputs, wide[0]);
      for (int64_t t = 1; t < tokens; ++t) Base::widen(row + t * args.ldx, inputs, wide[t]);
      tile_of(tokens, part, layout, panel, x, T::kWideX ? kPanelUnits : args.ldx / 4, ahead);
    }
  }

  static void run(const GroupDotArgs& args) {
    const Layout layout(args);
    const int64_t panel_groups = kPanelBlocks / layout.blocks;
    const int64_t panel_bytes = panel_groups * (layout.group_bytes + layout.head);
    const int64_t visits = (args.m + kMaxTokens - 1) / kMaxTokens * kChunks * panel_groups;
    const int64_t step = (panel_bytes / visits + 63) / 64 * 64;
    const std::byte* end = args.w + args.n / Base::kOutputs * layout.column_bytes;
    Panel panel;
    GroupDotArgs column = args;
    for (int64_t n = 0; n < args.n; n += Base::kOutputs, column.y += Base::kOutputs) {
      for (int64_t m = 0; m < args.m; ++m) {
        for (int64_t o = 0; o < Base::kOutputs; ++o) column.y[m * args.ldy + o] = 0.0F;
      }
      for (int64_t g = 0; g < layout.groups; g += panel_groups) {
        panel.first = g;
        panel.groups = layout.groups - g < panel_groups ? layout.groups - g : panel_groups;
        unpack(layout, column.w, &panel);
        const std::byte* next = layout.codes(column.w, g + panel.groups);
        Ahead ahead{next, next + panel_bytes < end ? next + panel_bytes : end, step};
        multiply_panel(column, layout, &panel, &ahead);
      }
      column.w += layout.column_bytes;
    }
  }
};

}  // namespace qllm::cpu
