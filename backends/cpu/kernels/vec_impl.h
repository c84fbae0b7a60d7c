// The float kernels of vec.h, written once over xsimd and instantiated by each tier.
//
// A tier passes a class `Tier` from its own anonymous namespace, so that no instantiation can be
// picked up by another tier's object:
//   using Arch                                       the xsimd architecture
//   static F pow2(F n)                               2^n for integral n in [-126, 127]
//   static void store_bf16(F, uint16_t*)             rounds to nearest even, NaN kept
//   static void store_u8(F, uint8_t*)                integral values in [0, 255]
//   static void store_s8(F, int8_t*)                 integral values in [-128, 127]
//   template <int> static F swapped(F)               vec_hadamard.h
// Compiled with -ffp-contract=off: where bits are promised, only written-out fma is fused.
#pragma once

#include <cstdint>
#include <xsimd/xsimd.hpp>

#include "kernels/vec.h"
#include "kernels/vec_hadamard.h"
#include "kernels/vec_math.h"

namespace qllm::cpu {

template <class Tier>
struct VecImpl {
  using F = xsimd::batch<float, typename Tier::Arch>;
  using I = xsimd::batch<int32_t, typename Tier::Arch>;
  static constexpr int64_t kSize = static_cast<int64_t>(F::size);
  static constexpr float kActivationZero = 128.0F;

  static void epilogue(const EpilogueArgs& args) noexcept {
    for (int64_t m = 0; m < args.m; ++m) epilogue_row(args, m);
  }

  static void epilogue_row(const EpilogueArgs& args, int64_t m) {
    const int32_t* acc = args.acc + m * args.ldacc;
    const float* residual = args.residual != nullptr ? args.residual + m * args.ldres : nullptr;
    float* y = args.y + m * args.ldy;
    const F x_scale(args.x_scale[m]);
    const I zero(128);
    int64_t n = 0;
    for (; n + kSize <= args.n; n += kSize) {
      const I sum = I::load_unaligned(acc + n) - zero * I::load_unaligned(args.w_sum + n);
      F v = xsimd::to_float(sum) * (x_scale * F::load_unaligned(args.w_scale + n));
      if (args.bias != nullptr) v = v + F::load_unaligned(args.bias + n);
      if (residual != nullptr) v = v + F::load_unaligned(residual + n);
      v.store_unaligned(y + n);
    }
    for (; n < args.n; ++n) {
      float v =
          static_cast<float>(acc[n] - 128 * args.w_sum[n]) * (args.x_scale[m] * args.w_scale[n]);
      if (args.bias != nullptr) v += args.bias[n];
      if (residual != nullptr) v += residual[n];
      y[n] = v;
    }
  }

  static void rms_norm(const float* x, const float* gain, float eps, int64_t n, float* y) noexcept {
    F squares[2] = {F(0.0F), F(0.0F)};
    for (int64_t i = 0; i < n; i += kSize) {
      const F v = load_some(x + i, n - i);
      squares[i / kSize % 2] = xsimd::fma(v, v, squares[i / kSize % 2]);
    }
    const float mean = sum_lanes(squares[0] + squares[1]) / static_cast<float>(n);
    const F inverse(1.0F / __builtin_sqrtf(mean + eps));
    for (int64_t i = 0; i < n; i += kSize) {
      F v = load_some(x + i, n - i) * inverse;
      if (gain != nullptr) v = v * load_some(gain + i, n - i);
      store_some(v, y + i, n - i);
    }
  }

  static void add(const AddArgs& args) noexcept {
    for (int64_t m = 0; m < args.m; ++m) {
      const float* acc = args.acc + m * args.ldacc;
      const float* residual = args.residual != nullptr ? args.residual + m * args.ldres : nullptr;
      float* y = args.y + m * args.ldy;
      for (int64_t n = 0; n < args.n; n += kSize) {
        F v = load_some(acc + n, args.n - n);
        if (args.bias != nullptr) v = v + load_some(args.bias + n, args.n - n);
        if (residual != nullptr) v = v + load_some(residual + n, args.n - n);
        store_some(v, y + n, args.n - n);
      }
    }
  }

  /// The largest finite magnitude of n values; 0 where there is none.
  static float finite_max(const float* x, int64_t n) {
    F largest(0.0F);
    const F infinity(__builtin_inff());
    for (int64_t i = 0; i < n; i += kSize) {
      const F a = xsimd::abs(load_some(x + i, n - i));
      largest = xsimd::max(largest, xsimd::select(a < infinity, a, F(0.0F)));  // false for NaN
    }
    return max_lanes(largest);
  }

  static void quantize_s8_groups(const float* x, int64_t n, int64_t n_padded, int64_t group,
                                 int8_t* q, float* scale, int32_t* sum) noexcept {
    for (int64_t begin = 0; begin < n_padded; begin += group, ++scale, ++sum) {
      const int64_t left = n > begin ? n - begin : 0;
      const int64_t count = left < group ? left : group;
      const float amax = finite_max(x + begin, count);
      const F inverse(amax > 0.0F ? 127.0F / amax : 0.0F);
      F total(0.0F);  // of integers below 2^24: exact
      for (int64_t i = 0; i < group; i += kSize) {
        const F v = i < count ? quantize(load_some(x + begin + i, count - i), inverse) : F(0.0F);
        total = total + v;
        Tier::store_s8(v, q + begin + i);
      }
      *scale = amax > 0.0F ? amax / 127.0F : 1.0F;
      *sum = static_cast<int32_t>(sum_lanes(total));
    }
  }

  static float quantize_u8(const float* x, int64_t n, int64_t n_padded, uint8_t* q) noexcept {
    const float amax = finite_max(x, n);
    const F inverse(amax > 0.0F ? 127.0F / amax : 0.0F);
    const F zero(kActivationZero);
    int64_t i = 0;
    for (; i + kSize <= n; i += kSize) {
      Tier::store_u8(quantize(F::load_unaligned(x + i), inverse) + zero, q + i);
    }
    if (i < n) {
      uint8_t tail[kSize];
      Tier::store_u8(quantize(load_some(x + i, n - i), inverse) + zero, tail);
      for (int64_t j = 0; i < n; ++i, ++j) q[i] = tail[j];
    }
    for (; i < n_padded; ++i) q[i] = 128;
    return amax > 0.0F ? amax / 127.0F : 1.0F;
  }

  /// clamp(round_half_even(x * inverse), -127, 127); NaN gives 0.
  static F quantize(F x, F inverse) {
    const F r = xsimd::nearbyint(x * inverse);
    const F number = xsimd::select(r == r, r, F(0.0F));
    return xsimd::min(xsimd::max(number, F(-127.0F)), F(127.0F));
  }

  static void swiglu(const float* gate_up, int64_t n, float* y) noexcept {
    for (int64_t i = 0; i < n; i += 64) {
      const float* gate = gate_up + 2 * i;
      const int64_t count = n - i < 64 ? n - i : 64;
      for (int64_t j = 0; j < count; j += kSize) {
        const F g = load_some(gate + j, count - j);
        const F u = load_some(gate + 64 + j, count - j);
        store_some(g / (F(1.0F) + exp_batch<Tier>(-g)) * u, y + i + j, count - j);
      }
    }
  }

  static void to_bf16(const float* x, int64_t n, uint16_t* y) noexcept {
    int64_t i = 0;
    for (; i + kSize <= n; i += kSize) Tier::store_bf16(F::load_unaligned(x + i), y + i);
    if (i == n) return;
    uint16_t tail[kSize];
    Tier::store_bf16(load_some(x + i, n - i), tail);
    for (int64_t j = 0; i < n; ++i, ++j) y[i] = tail[j];
  }

  static constexpr VecKernels table(Isa isa) {
    return {isa,         epilogue,           add,    rms_norm,
            quantize_u8, quantize_s8_groups, swiglu, HadamardImpl<Tier>::hadamard64,
            to_bf16};
  }

 private:
  static F load_some(const float* p, int64_t count) { return load_partial<Tier>(p, count); }

  static void store_some(F v, float* p, int64_t count) {
    if (count >= kSize) return v.store_unaligned(p);
    float lanes[kSize];
    v.store_unaligned(lanes);
    for (int64_t j = 0; j < count; ++j) p[j] = lanes[j];
  }

  static float sum_lanes(F v) {
    float lanes[kSize];
    v.store_unaligned(lanes);
    float sum = 0.0F;
    for (const float lane : lanes) sum += lane;
    return sum;
  }

  static float max_lanes(F v) {
    float lanes[kSize];
    v.store_unaligned(lanes);
    float largest = lanes[0];
    for (const float lane : lanes) largest = lane > largest ? lane : largest;
    return largest;
  }
};

}  // namespace qllm::cpu
