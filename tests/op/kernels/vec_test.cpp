// The float kernels of every tier against double precision, within bounds derived beside each.
// u = 2^-24 is the unit roundoff of float; each bound counts the roundings of the kernel.
#include "kernels/vec.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "quant/group_quant.h"
#include "quant/int8.h"

using namespace qllm;  // NOLINT

namespace {

constexpr double kU = 0x1p-24;
constexpr int64_t kLengths[] = {1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 576, 1000};

template <typename Check>
void for_each_tier(const Check& check) {
  for (const cpu::Isa isa :
       {cpu::Isa::scalar, cpu::Isa::avx2, cpu::Isa::avxvnni, cpu::Isa::avx512vnni, cpu::Isa::amx}) {
    if (!cpu::isa_available(isa)) continue;
    const std::string name(cpu::isa_name(isa));
    CAPTURE(name);
    check(cpu::vec_kernels(isa));
  }
}

std::vector<float> normal(size_t n, uint32_t seed, float sigma = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> of(0.0F, sigma);
  std::vector<float> v(n);
  for (float& x : v) x = of(random);
  return v;
}

uint32_t bits_of(float x) {
  uint32_t b = 0;
  std::memcpy(&b, &x, sizeof b);
  return b;
}

uint16_t to_bf16(float x) {
  const uint32_t b = bits_of(x);
  if (std::isnan(x)) return static_cast<uint16_t>((b | 0x400000U) >> 16);
  return static_cast<uint16_t>((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

/// Rows that hold what quantizing must not trip over: form 0..7.
std::vector<float> awkward_row(int64_t n, int form) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  auto x = normal(static_cast<size_t>(n), static_cast<uint32_t>(n + form), 2.0F);
  const size_t at = x.size() / 2;
  if (form == 1) x[at] = nan;
  if (form == 2) x[at] = inf, x[0] = -inf;
  if (form == 3) x.assign(x.size(), 0.0F);
  if (form == 4) x.assign(x.size(), nan), x[at] = -inf;
  if (form == 5) x.assign(x.size(), 1e-45F), x[at] = 0.0F;  // 127 / amax overflows
  if (form == 6)
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = (static_cast<float>(i % 255) - 127.0F) / 2;  // ties
  if (form == 7) x.assign(x.size(), -std::numeric_limits<float>::max());
  return x;
}

}  // namespace

TEST_CASE("vec tiers: those that the machine lacks are skipped") {
  for (const cpu::Isa isa :
       {cpu::Isa::avx2, cpu::Isa::avxvnni, cpu::Isa::avx512vnni, cpu::Isa::amx}) {
    if (!cpu::isa_available(isa)) {
      MESSAGE("[skipped] float kernels of " << std::string(isa_name(isa))
                                            << ": the machine lacks it");
    }
  }
}

TEST_CASE("epilogue: equals double within six roundings") {
  // float(s), x_scale * w_scale, their product: 3u of |p|; + bias: u(|p| + |b|); + residual:
  // u(|p| + |b| + |r|); second-order terms are covered by counting 6, 3 and 2.
  for (const int64_t n : kLengths) {
    const int64_t m = 3, ld = n + 5;
    std::mt19937 random(static_cast<uint32_t>(n));
    std::vector<int32_t> acc(static_cast<size_t>(m * ld)), w_sum(static_cast<size_t>(n));
    for (int32_t& v : acc) v = static_cast<int32_t>(random()) / 8;
    for (int32_t& v : w_sum) v = static_cast<int32_t>(random() % 400000) - 200000;
    const auto w_scale = normal(static_cast<size_t>(n), 2, 1e-3F), x_scale = normal(3, 3, 0.1F);
    const auto bias = normal(static_cast<size_t>(n), 4),
               res = normal(static_cast<size_t>(m * ld), 5);
    for (int form = 0; form < 4; ++form) {
      const bool has_bias = (form & 1) != 0, has_residual = (form & 2) != 0;
      for_each_tier([&](const cpu::VecKernels& vec) {
        std::vector<float> y = res;  // the residual may be y itself
        cpu::EpilogueArgs args{acc.data(), w_sum.data(), w_scale.data(), x_scale.data()};
        args.bias = has_bias ? bias.data() : nullptr;
        args.residual = has_residual ? y.data() : nullptr;
        args.y = y.data();
        args.m = m, args.n = n, args.ldacc = ld, args.ldres = ld, args.ldy = ld;
        vec.epilogue(args);
        for (int64_t i = 0; i < m * ld; ++i) {
          const auto at = static_cast<size_t>(i);
          const auto c = static_cast<size_t>(i % ld);
          if (i % ld >= n) {
            REQUIRE(y[at] == res[at]);  // nothing past n is touched
            continue;
          }
          const double p = (static_cast<double>(acc[at]) - 128.0 * w_sum[c]) *
                           x_scale[static_cast<size_t>(i / ld)] * w_scale[c];
          const double b = has_bias ? bias[c] : 0.0, r = has_residual ? res[at] : 0.0;
          const double bound = kU * (6 * std::fabs(p) + 3 * std::fabs(b) + 2 * std::fabs(r));
          REQUIRE(std::fabs(y[at] - (p + b + r)) <= bound);
        }
      });
    }
  }
}

TEST_CASE("rms_norm: equals double within (n/2 + 8) roundings") {
  // A sum of n positive terms is off by at most n u relatively, its root by half of that; square,
  // mean, + eps, root, inverse and two products round once each.
  for (const int64_t n : kLengths) {
    const auto x = normal(static_cast<size_t>(n), 7, 3.0F),
               gain = normal(static_cast<size_t>(n), 8);
    double sum = 0;
    for (const float v : x) sum += static_cast<double>(v) * v;
    const double inverse = 1.0 / std::sqrt(sum / static_cast<double>(n) + 1e-5F);
    for_each_tier([&](const cpu::VecKernels& vec) {
      std::vector<float> y(static_cast<size_t>(n) + 1, 77.0F);
      vec.rms_norm(x.data(), gain.data(), 1e-5F, n, y.data());
      for (size_t i = 0; i < x.size(); ++i) {
        const double want = x[i] * inverse * gain[i];
        REQUIRE(std::fabs(y[i] - want) <= kU * (static_cast<double>(n) / 2 + 8) * std::fabs(want));
      }
      REQUIRE(y.back() == 77.0F);
      vec.rms_norm(x.data(), nullptr, 1e-5F, n, y.data());  // one rounding less
      for (size_t i = 0; i < x.size(); ++i) {
        const double want = x[i] * inverse;
        REQUIRE(std::fabs(y[i] - want) <= kU * (static_cast<double>(n) / 2 + 7) * std::fabs(want));
      }
    });
  }
}

TEST_CASE("quantize_u8: equals the reference bit for bit") {
  for (const int64_t n : kLengths) {
    for (int form = 0; form < 8; ++form) {
      const auto x = awkward_row(n, form);
      const int64_t padded = (n + 63) / 64 * 64;
      std::vector<uint8_t> want(static_cast<size_t>(padded) + 1, 9);
      const float scale = quantize_row_u8(x.data(), n, padded, want.data());
      for_each_tier([&](const cpu::VecKernels& vec) {
        std::vector<uint8_t> got(want.size(), 9);
        CAPTURE(n);
        CAPTURE(form);
        CHECK(bits_of(vec.quantize_u8(x.data(), n, padded, got.data())) == bits_of(scale));
        CHECK(got == want);
      });
    }
  }
}

TEST_CASE("quantize_s8_groups: equals the reference bit for bit") {
  for (const int64_t n : kLengths) {
    for (int form = 0; form < 8; ++form) {
      const auto x = awkward_row(n, form);
      for (const int64_t group : {32, 64, 128}) {
        const int64_t padded = (n + 127) / 128 * 128 + 128;
        const auto groups = static_cast<size_t>(padded / group);
        std::vector<int8_t> want(static_cast<size_t>(padded) + 1, 9);
        std::vector<float> want_scale(groups + 1, 9.0F);
        std::vector<int32_t> want_sum(groups + 1, 9);
        quantize_groups_s8(x.data(), n, padded, group, want.data(), want_scale.data(),
                           want_sum.data());
        for_each_tier([&](const cpu::VecKernels& vec) {
          std::vector<int8_t> got(want.size(), 9);
          std::vector<float> scale(want_scale.size(), 9.0F);
          std::vector<int32_t> sum(want_sum.size(), 9);
          vec.quantize_s8_groups(x.data(), n, padded, group, got.data(), scale.data(), sum.data());
          CAPTURE(n);
          CAPTURE(form);
          CAPTURE(group);
          CHECK(got == want);
          CHECK(scale == want_scale);
          CHECK(sum == want_sum);
        });
      }
    }
  }
}

TEST_CASE("add: the float sum in the order written, ragged widths") {
  for (const int64_t n : kLengths) {
    const auto size = static_cast<size_t>(n);
    const auto acc = normal(2 * size, 1, 1.0F), bias = normal(size, 2, 1.0F),
               residual = normal(2 * size, 3, 1.0F);
    for (int form = 0; form < 4; ++form) {
      for_each_tier([&](const cpu::VecKernels& vec) {
        std::vector<float> y(2 * size + 1, 77.0F);
        vec.add({acc.data(), form % 2 == 1 ? bias.data() : nullptr,
                 form >= 2 ? residual.data() : nullptr, y.data(), 2, n, n, n, n});
        for (size_t i = 0; i < 2 * size; ++i) {
          float want = acc[i];
          if (form % 2 == 1) want += bias[i % size];
          if (form >= 2) want += residual[i];
          REQUIRE(bits_of(y[i]) == bits_of(want));
        }
        REQUIRE(y.back() == 77.0F);
      });
    }
  }
}

TEST_CASE("swiglu: equals double within the bound of its exponential") {
  // e^-g is off by 2^-20 relatively at most, so g / (1 + e^-g) by 2^-20 and three roundings more.
  for (const int64_t n : kLengths) {
    const size_t blocks = static_cast<size_t>(n + 63) / 64;
    auto in = normal(blocks * 128, static_cast<uint32_t>(n), 4.0F);
    for_each_tier([&](const cpu::VecKernels& vec) {
      std::vector<float> y(static_cast<size_t>(n) + 1, 77.0F);
      vec.swiglu(in.data(), n, y.data());
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        const double g = in[i / 64 * 128 + i % 64], up = in[i / 64 * 128 + 64 + i % 64];
        const double want = g / (1.0 + std::exp(-g)) * up;
        REQUIRE(std::fabs(y[i] - want) <= (0x1p-20 + 4 * kU) * std::fabs(want));
      }
      REQUIRE(y.back() == 77.0F);
    });
  }
}

TEST_CASE("swiglu: the exponential stays within 2^-20 over its range, and limits are right") {
  // For g << 0 silu(g) = g e^g (1 - e^g + ...): its relative error is that of the exponential.
  std::vector<float> in(128, 1.0F), y(64);
  for_each_tier([&](const cpu::VecKernels& vec) {
    double worst = 0;
    for (int step = 0; step < 8192; ++step) {
      for (size_t i = 0; i < 64; ++i) {
        in[i] = -87.0F + static_cast<float>(step * 64 + static_cast<int>(i)) * (174.0F / 524288.0F);
      }
      vec.swiglu(in.data(), 64, y.data());
      for (size_t i = 0; i < 64; ++i) {
        const double g = in[i], want = g / (1.0 + std::exp(-g));
        REQUIRE(std::isfinite(y[i]));  // max() passes over NaN
        if (want != 0) worst = std::max(worst, std::fabs(y[i] - want) / std::fabs(want));
      }
    }
    CHECK(worst <= 0x1p-20 + 3 * kU);
    in[0] = 1e4F, in[1] = -1e4F, in[2] = std::numeric_limits<float>::quiet_NaN(), in[3] = 0.0F;
    vec.swiglu(in.data(), 64, y.data());
    CHECK(y[0] == 1e4F);
    CHECK(std::fabs(y[1]) < 1e-30F);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 0.0F);
  });
}

TEST_CASE("hadamard64: the stated order bit for bit, double within six roundings a sum") {
  // Six additions on every path from an input to an output, each of a value that is at most the sum
  // of the magnitudes; dividing by 8 is exact.
  for (const int64_t n : {0, 64, 128, 1536}) {
    const auto x = normal(static_cast<size_t>(n), static_cast<uint32_t>(n) + 3, 5.0F);
    auto ordered = x;
    for (const size_t s : {1, 2, 4, 8, 16, 32}) {
      for (size_t i = 0; i < ordered.size(); ++i) {
        if ((i & s) != 0) continue;
        const float a = ordered[i], b = ordered[i + s];
        ordered[i] = a + b, ordered[i + s] = a - b;
      }
    }
    for_each_tier([&](const cpu::VecKernels& vec) {
      std::vector<float> y = x;
      y.push_back(77.0F);
      vec.hadamard64(y.data(), n);
      for (size_t i = 0; i < x.size(); ++i) {
        REQUIRE(bits_of(y[i]) == bits_of(ordered[i] / 8));
        double want = 0, size = 0;
        for (size_t j = 0; j < 64; ++j) {
          const double term = x[i / 64 * 64 + j] / 8.0;
          want += std::popcount(i % 64 & j) % 2 != 0 ? -term : term;
          size += std::fabs(term);
        }
        REQUIRE(std::fabs(y[i] - want) <= 7 * kU * size);
      }
      REQUIRE(y.back() == 77.0F);
    });
  }
}

TEST_CASE("to_bf16: rounds to nearest even and keeps NaN") {
  std::mt19937 random(5);
  for (const int64_t n : kLengths) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) {
      uint32_t b = static_cast<uint32_t>(random());
      if (random() % 4 == 0) b = (b & 0xffff0000U) | 0x8000U;  // ties
      std::memcpy(&v, &b, sizeof v);
    }
    x[0] = std::numeric_limits<float>::quiet_NaN();
    for_each_tier([&](const cpu::VecKernels& vec) {
      std::vector<uint16_t> y(x.size() + 1, 7);
      vec.to_bf16(x.data(), n, y.data());
      for (size_t i = 0; i < x.size(); ++i) REQUIRE(y[i] == to_bf16(x[i]));
      REQUIRE(y.back() == 7);
    });
  }
}
