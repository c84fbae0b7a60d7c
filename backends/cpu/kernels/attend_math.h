// Float pieces of the attention kernels over a tier's Ops (attend_impl.h).
#pragma once

#include <cstdint>

namespace qllm::cpu {

inline constexpr float kAttendLog2e = 1.44269504F;

/// 2^x within 2^-20 for x in [-125, 120], for less 2^-125. x = n + f with |f| <= 1/2, exactly: 2^n
/// is added to the exponent of the polynomial of degree 5 in f whose largest relative error is
/// least (Remez) among those that are 1 at 0: whole x give 2^x itself, so that a maximum that stays
/// changes nothing of what was found before.
///
/// Relative error: the polynomial with these coefficients 1.2e-7, Horner with fma < 2 ulp = 1.2e-7
/// (3 ulp without): together < 3.5e-7. n is rounded by adding 1.5 2^23, which leaves it in the low
/// bits.
template <class Ops>
[[gnu::always_inline]] inline typename Ops::F attend_exp2(typename Ops::F x) {
  using F = typename Ops::F;
  const F magic = Ops::set(12582912.0F);
  x = Ops::max(Ops::set(-125.0F), x);
  const F shifted = Ops::add(x, magic);
  const F f = Ops::sub(x, Ops::sub(shifted, magic));
  F p = Ops::fma(Ops::set(0.00132646586F), f, Ops::set(0.00967156608F));
  p = Ops::fma(p, f, Ops::set(0.0555073433F));
  p = Ops::fma(p, f, Ops::set(0.240222409F));
  p = Ops::fma(p, f, Ops::set(0.693147004F));
  p = Ops::fma(p, f, Ops::set(1.0F));
  return Ops::times_pow2(p, shifted);
}

/// Of scores s log2(e): log2(e) cap tanh(s / cap) = c - 2 c / (2^(2 s log2(e) / cap) + 1), where c
/// = cap log2(e). Error at most c (2^-20 + 42u): d/dE of 2 / (E + 1) times E is at most 1/2, so
/// half the exponential's 2^-20 and half of what the roundings of its argument make (at most 58 ln2
/// 2u: above that nothing changes) come through, and the last operations add 2u.
template <class Ops>
[[gnu::always_inline]] inline typename Ops::F attend_softcap(typename Ops::F s, float cap) {
  using F = typename Ops::F;
  const float c = cap * kAttendLog2e;
  const F x = Ops::min(Ops::set(58.0F), Ops::mul(s, Ops::set(2.0F / cap)));
  const F e = Ops::add(attend_exp2<Ops>(x), Ops::set(1.0F));
  return Ops::sub(Ops::set(c), Ops::div(Ops::set(2.0F * c), e));
}

/// 32767 / amax, 0 where that would be infinite.
template <class Ops>
inline float attend_inverse16(float amax) {
  return amax >= 1.17549435e-38F * 32767.0F ? 32767.0F / amax : 0.0F;
}

/// max |x| over x [n], n a multiple of the lanes.
template <class Ops>
inline float attend_largest(const float* x, int64_t n) {
  typename Ops::F top = Ops::set(0.0F);
  for (int64_t i = 0; i < n; i += Ops::kLanes) top = Ops::max(Ops::abs(Ops::load(x + i)), top);
  return Ops::max_lanes(top);
}

/// Words of x [n], n a multiple of 16, as 16-bit values q = round(x / scale): of four values
/// {q0, q2}, {q1, q3}. Returns the scale, max |x| / 32767 (1 where all are 0).
template <class Ops>
inline float attend_quantize16(const float* x, int64_t n, uint32_t* words) {
  const float amax = attend_largest<Ops>(x, n);
  const typename Ops::F inverse = Ops::set(attend_inverse16<Ops>(amax));
  for (int64_t i = 0; i < n; i += 16) {
    typename Ops::F scaled[16 / Ops::kLanes];
#pragma GCC unroll 4
    for (int64_t j = 0; j < 16 / Ops::kLanes; ++j) {
      scaled[j] = Ops::mul(Ops::load(x + i + j * Ops::kLanes), inverse);
    }
    Ops::store_pairs(scaled, words + i / 2);
  }
  return amax > 0.0F ? amax * (1.0F / 32767.0F) : 1.0F;
}

}  // namespace qllm::cpu
