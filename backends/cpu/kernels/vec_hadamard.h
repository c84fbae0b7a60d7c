// The Hadamard transform in blocks of 64, in registers (vec_impl.h says what a Tier is). It needs
//   template <int kStride> static F swapped(F)   lane i gets lane i ^ kStride, for powers of two
//                                                below F::size
#pragma once

#include <cstdint>
#include <xsimd/xsimd.hpp>

namespace qllm::cpu {

template <class Tier>
struct HadamardImpl {
  using F = xsimd::batch<float, typename Tier::Arch>;
  static constexpr int kSize = static_cast<int>(F::size);
  static constexpr int kRegisters = 64 / kSize;  // 4, 8 or 16 hold a block

  static void hadamard64(float* x, int64_t n) noexcept {
    for (int64_t i = 0; i < n; i += 64) block(x + i);
  }

 private:
  [[gnu::always_inline]] static inline void block(float* x) {
    F v[kRegisters];
#pragma GCC unroll 16
    for (int r = 0; r < kRegisters; ++r) v[r] = F::load_unaligned(x + r * kSize);
    stage<1>(v);
    stage<2>(v);
    stage<4>(v);
    stage<8>(v);
    stage<16>(v);
    stage<32>(v);
#pragma GCC unroll 16
    for (int r = 0; r < kRegisters; ++r) (v[r] * F(0.125F)).store_unaligned(x + r * kSize);
  }

  /// (a, b) -> (a + b, a - b) of all pairs kStride apart: one rounding a value, on every tier
  /// alike.
  template <int kStride>
  [[gnu::always_inline]] static inline void stage(F* v) {
    if constexpr (kStride < kSize) {
      const F sign = signs(kStride);
#pragma GCC unroll 16
      for (int r = 0; r < kRegisters; ++r) {
        v[r] = xsimd::fma(v[r], sign, Tier::template swapped<kStride>(v[r]));  // * 1 or -1: exact
      }
    } else {
      constexpr int kApart = kStride / kSize;
#pragma GCC unroll 16
      for (int r = 0; r < kRegisters; ++r) {
        if ((r & kApart) != 0) continue;
        const F a = v[r], b = v[r + kApart];
        v[r] = a + b;
        v[r + kApart] = a - b;
      }
    }
  }

  /// 1 where a lane is the first of its pair, -1 where it is the second.
  [[gnu::always_inline]] static inline F signs(int stride) {
    float lanes[kSize];
    for (int i = 0; i < kSize; ++i) lanes[i] = (i & stride) != 0 ? -1.0F : 1.0F;
    return F::load_unaligned(lanes);
  }
};

}  // namespace qllm::cpu
