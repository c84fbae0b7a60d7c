// Pieces that the float kernels share (vec_impl.h says what a Tier is).
#pragma once

#include <cstdint>
#include <xsimd/xsimd.hpp>

namespace qllm::cpu {

template <class Tier>
using FloatBatch = xsimd::batch<float, typename Tier::Arch>;

/// The first `count` values at p, zeros behind them; a whole batch where count allows.
template <class Tier>
FloatBatch<Tier> load_partial(const float* p, int64_t count) {
  using F = FloatBatch<Tier>;
  if (count >= static_cast<int64_t>(F::size)) return F::load_unaligned(p);
  float lanes[F::size] = {};
  for (int64_t j = 0; j < count; ++j) lanes[j] = p[j];
  return F::load_unaligned(lanes);
}

/// e^x: x = n ln2 + r with |r| <= ln2/2, 2^n times the Taylor polynomial of degree 6 in r.
///
/// Relative error for x in [-87.3, 88.3]: remainder |r|^7/7! * e^(2|r|) < 2.4e-7; Horner with fma
/// < 2 ulp = 1.2e-7 (3 ulp without fma); r from a two-part ln2: n * 2^-33 is far below that.
/// Together < 4.3e-7 < 2^-20 = 9.5e-7. Outside x is clamped: below, the result is 2^-126 where e^x
/// is smaller; above, 2^127. NaN stays NaN.
template <class Tier>
FloatBatch<Tier> exp_batch(FloatBatch<Tier> x) {
  using F = FloatBatch<Tier>;
  // The second operand of a min or max of x86 wins where one is NaN.
  x = xsimd::min(F(88.02969F), xsimd::max(F(-87.33654F), x));
  const F n = xsimd::nearbyint(x * F(1.44269504F));
  F r = xsimd::fma(n, F(-0.693359375F), x);  // 9 bits: n times it is exact
  r = xsimd::fma(n, F(2.12194440e-4F), r);
  F p(1.0F / 720.0F);
  p = xsimd::fma(p, r, F(1.0F / 120.0F));
  p = xsimd::fma(p, r, F(1.0F / 24.0F));
  p = xsimd::fma(p, r, F(1.0F / 6.0F));
  p = xsimd::fma(p, r, F(0.5F));
  p = xsimd::fma(p, r, F(1.0F));
  p = xsimd::fma(p, r, F(1.0F));
  return p * Tier::pow2(n);
}

}  // namespace qllm::cpu
