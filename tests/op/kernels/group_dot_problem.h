// A matmul to hold a kernel on weights in groups to: random codes, scales and activations, packed
// by the index equations of quant/group.h, and y by the formula of the contract in double.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/group_dot.h"
#include "op/kernels/dot_problem.h"
#include "quant/float_bits.h"

namespace qllm::test {

struct GroupDotProblem {
  GroupDotProblem(const GroupFormat& format_in, int64_t m_in, int64_t columns, int64_t k_in,
                  Fill fill = Fill::random, uint32_t seed = 1)
      : format(format_in),
        m(m_in),
        n(64 * columns),
        k(format_in.padded_k(k_in)),
        groups(k / format_in.group),
        ldx(k + 64),
        ldg(groups + 3),
        ldy(n + 16),
        x(m * ldx),
        w(columns * format_in.column_bytes(k)),
        x_scale(static_cast<size_t>(m * ldg)),
        x_sum(static_cast<size_t>(m * ldg)),
        random(seed) {
    fill_x(fill);
    for (int64_t r = 0; r < n; ++r) fill_row(r, k_in, fill);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t r = 0; r < n; ++r) expected.push_back(expect(i, r));
    }
  }

  /// Runs a kernel into fresh memory; the number of outputs beyond the bound, plus those outside
  /// [m, n] that it touched.
  int64_t mismatches(void (*run)(const cpu::GroupDotArgs&) noexcept) const {
    constexpr float kUntouched = -12345.0F;
    Aligned<float> y(m * ldy);
    for (int64_t i = 0; i < y.size; ++i) y[i] = kUntouched;
    run({format, x.data.get(), x_scale.data(), x_sum.data(), w.data.get(), y.data.get(), m, n, k,
         ldx, ldg, ldy});
    int64_t wrong = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t r = 0; r < ldy; ++r) {
        const float got = y[i * ldy + r];
        wrong += (r < n ? within_bound(i, r, got) : got == kUntouched) ? 0 : 1;
      }
    }
    return wrong;
  }

  GroupFormat format;
  int64_t m, n, k, groups, ldx, ldg, ldy;
  Aligned<int8_t> x;
  Aligned<std::byte> w;
  std::vector<float> x_scale;
  std::vector<int32_t> x_sum;

 private:
  struct Expected {
    double y, bound;
  };

  bool within_bound(int64_t i, int64_t r, float got) const {
    const Expected& e = expected[static_cast<size_t>(i * n + r)];
    return std::fabs(got - e.y) <= e.bound;
  }

  /// The contract: abs(error) <= (groups + 4) u sum_g xs (abs(scale) abs(dot) + abs(min) abs(X)),
  /// to first order in u; one unit more covers the rest of the series (groups < 2^10).
  Expected expect(int64_t i, int64_t r) const {
    double want = 0.0;
    double size = 0.0;
    for (int64_t g = 0; g < groups; ++g) {
      int64_t dot = 0;
      for (int64_t c = 0; c < format.group; ++c) {
        const int64_t at = g * format.group + c;
        dot += (codes[static_cast<size_t>(r * k + at)] - format.zero()) * x[i * ldx + at];
      }
      const double xs = x_scale[static_cast<size_t>(i * ldg + g)];
      const double sum = x_sum[static_cast<size_t>(i * ldg + g)];
      const double scale = scales[static_cast<size_t>(r * groups + g)];
      const double min = mins[static_cast<size_t>(r * groups + g)];
      want += xs * (scale * static_cast<double>(dot) + min * sum);
      size += xs * (std::fabs(scale * static_cast<double>(dot)) + std::fabs(min * sum));
    }
    const double u = std::ldexp(1.0, -24);
    return {want, static_cast<double>(groups + 5) * u * size};
  }

  void fill_x(Fill fill) {
    std::uniform_real_distribution<float> scale(0.5F, 2.0F);
    for (int64_t i = 0; i < x.size; ++i) {
      const auto any = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
      x[i] = fill == Fill::random ? any : static_cast<int8_t>(fill == Fill::largest ? 127 : -127);
    }
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t g = 0; g < groups; ++g) {
        x_scale[static_cast<size_t>(i * ldg + g)] = scale(random);
        for (int64_t c = 0; c < format.group; ++c) {
          x_sum[static_cast<size_t>(i * ldg + g)] += x[i * ldx + g * format.group + c];
        }
      }
    }
  }

  void put_half(int64_t byte, uint16_t half) { std::memcpy(w.data.get() + byte, &half, 2); }
  uint16_t random_half() {
    return float_to_half(std::uniform_real_distribution<float>(-1.0F, 1.0F)(random));
  }

  void fill_row(int64_t r, int64_t k_in, Fill fill) {
    const int64_t column = r / 64 * format.column_bytes(k);
    const int64_t c = r % 64;
    uint16_t d = 0;
    uint16_t dmin = 0;
    for (int64_t g = 0; g < groups; ++g) {
      const bool padding = g * format.group >= k_in;
      const bool k_quant = format.scales == GroupScales::k_quant;
      const int64_t per_record = format.record_k() / format.group;
      const int64_t record = column + g / per_record * format.record_bytes();
      int64_t codes_at = record + (format.scales == GroupScales::f16 ? 128 : 256);
      if (g % per_record == 0) {
        d = padding ? uint16_t{0} : random_half();
        dmin = padding || format.scales == GroupScales::f16 ? uint16_t{0} : random_half();
        put_half(record + 2 * c, d);
        if (format.scales != GroupScales::f16) put_half(record + 128 + 2 * c, dmin);
      }
      float scale = half_to_float(d);
      float min = half_to_float(dmin);
      if (k_quant) {
        codes_at += g % per_record * (128 + format.code_bytes());
        const auto sub_scale = static_cast<uint8_t>(random() % 64);
        const auto sub_min = static_cast<uint8_t>(random() % 64);
        w[codes_at + c] = std::byte{sub_scale};
        w[codes_at + 64 + c] = std::byte{sub_min};
        codes_at += 128;
        scale *= static_cast<float>(sub_scale);
        min *= -static_cast<float>(sub_min);
      }
      scales.push_back(scale);
      mins.push_back(min);
      for (int64_t i = 0; i < format.group; ++i) put_code(codes_at, c, i, fill);
    }
  }

  void put_code(int64_t codes_at, int64_t c, int64_t i, Fill fill) {
    const uint32_t top = format.bits == 4 ? 15 : 255;
    const uint32_t any = fill == Fill::random ? static_cast<uint32_t>(random()) & top : top;
    const auto code = static_cast<uint8_t>(any);
    codes.push_back(code);
    if (format.bits == 8) {
      w[codes_at + i / 4 * 256 + c * 4 + i % 4] = std::byte{code};
      return;
    }
    std::byte& both = w[codes_at + i / 8 * 256 + c * 4 + i % 4];
    both = i % 8 < 4 ? (both & std::byte{0xf0}) | std::byte{code}
                     : (both & std::byte{0x0f}) | (std::byte{code} << 4);
  }

  std::mt19937 random;
  std::vector<uint8_t> codes;      // [n, k]
  std::vector<float> scales;       // [n, groups]
  std::vector<float> mins;         // [n, groups]
  std::vector<Expected> expected;  // [m, n]
};

/// Every format that quant/group.h allows, 8 bits with super-blocks left out: no file has it.
inline std::vector<GroupFormat> group_formats() {
  std::vector<GroupFormat> formats{{4, 32, GroupScales::k_quant}};
  for (const int bits : {4, 8}) {
    for (const int group : {32, 64, 128}) {
      formats.push_back({bits, group, GroupScales::f16});
      formats.push_back({bits, group, GroupScales::f16_min});
    }
  }
  return formats;
}

inline std::string describe(const GroupFormat& format) {
  const char* const names[] = {"f16", "f16_min", "k_quant"};
  return std::to_string(format.bits) + " bits, groups of " + std::to_string(format.group) + ", " +
         names[static_cast<int>(format.scales)];
}

}  // namespace qllm::test
