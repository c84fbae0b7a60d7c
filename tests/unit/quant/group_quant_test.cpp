#include "quant/group_quant.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "quant/float_bits.h"
#include "quant/int8.h"

namespace qllm {
namespace {

constexpr GroupFormat kFormats[] = {
    {4, 32, GroupScales::f16},     {4, 64, GroupScales::f16},     {4, 128, GroupScales::f16},
    {4, 32, GroupScales::f16_min}, {4, 64, GroupScales::f16_min}, {4, 128, GroupScales::f16_min},
    {8, 32, GroupScales::f16},     {8, 32, GroupScales::f16_min}, {8, 128, GroupScales::f16_min},
};

std::vector<float> gaussian(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.01F, 0.05F);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

std::vector<float> round_trip(const GroupFormat& format, const std::vector<float>& x) {
  GroupRow row;
  quantize_group_row(format, x.data(), static_cast<int64_t>(x.size()), &row);
  std::vector<float> y(row.q.size());
  dequantize_group_row(format, row, y.data());
  return y;
}

struct Range {
  float low, high;
};

Range range_of(const std::vector<float>& x, size_t begin, size_t end) {
  const auto at = [&](size_t i) { return x.begin() + static_cast<std::ptrdiff_t>(i); };
  const auto [low, high] = std::minmax_element(at(begin), at(std::min(end, x.size())));
  return {*low, *high};
}

/// Squared error of plain round-to-nearest over the group's range, in exact scales: what a fit must
/// not exceed by more than the rounding of its scales.
double plain_error(const GroupFormat& format, const std::vector<float>& x, size_t begin,
                   size_t end) {
  const auto [low, high] = range_of(x, begin, end);
  const bool has_min = format.scales == GroupScales::f16_min;
  const double far = std::fabs(high) > std::fabs(low) ? high : low;
  double scale = (static_cast<double>(high) - low) / ((1 << format.bits) - 1);
  if (!has_min) scale = format.bits == 8 ? std::fabs(far) / 127 : far / -8;
  const double min = has_min ? low : 0;
  const double from = has_min ? 0 : (format.bits == 8 ? -127 : -8);
  const double to = has_min ? (1 << format.bits) - 1 : (format.bits == 8 ? 127 : 7);
  double sum = 0;
  for (size_t i = begin; i < std::min(end, x.size()); ++i) {
    const double q = std::clamp(std::nearbyint((x[i] - min) / scale), from, to);
    sum += std::pow(q * scale + min - x[i], 2);
  }
  return sum;
}

double error_between(const std::vector<float>& x, const std::vector<float>& y, size_t begin,
                     size_t end) {
  double sum = 0;
  for (size_t i = begin; i < std::min(end, x.size()); ++i) {
    sum += std::pow(static_cast<double>(x[i]) - y[i], 2);
  }
  return sum;
}

}  // namespace

TEST_CASE("quantize_group_row: no group is worse than plain rounding over its range") {
  for (const GroupFormat& format : kFormats) {
    const std::vector<float> x = gaussian(600, 3);  // the last group is cut short
    const std::vector<float> y = round_trip(format, x);
    const auto group = static_cast<size_t>(format.group);
    for (size_t begin = 0; begin < x.size(); begin += group) {
      // Rounding scale and minimum to f16 (2^-11 of each) moves every value by at most 2^-11 of
      // the largest magnitude, twice.
      const auto [low, high] = range_of(x, begin, begin + group);
      const double moved = std::ldexp(std::max(std::fabs(low), std::fabs(high)), -10);
      const double plain = plain_error(format, x, begin, begin + group);
      const double slack = moved * std::sqrt(static_cast<double>(group));
      CHECK(error_between(x, y, begin, begin + group) <= std::pow(std::sqrt(plain) + slack, 2));
    }
  }
}

TEST_CASE("quantize_group_row: a row that lies on the grid comes back exactly") {
  for (const GroupFormat& format : kFormats) {
    std::mt19937 random(5);
    GroupRow row;
    zero_group_row(format, 256, &row);
    for (size_t i = 0; i < row.q.size(); ++i) {
      row.q[i] = static_cast<uint8_t>(random() % (1U << format.bits));
      // Both ends of the range occur in each group, so that it is found again; -128 is not used.
      if (i % 32 == 0) row.q[i] = format.zero() == 128 ? 1 : 0;
      if (i % 32 == 1) row.q[i] = static_cast<uint8_t>((1U << format.bits) - 1);
      if (format.zero() == 128 && row.q[i] == 0) row.q[i] = 1;
    }
    row.scale.assign(row.scale.size(), float_to_half(0.0078125F));
    row.min.assign(row.min.size(), float_to_half(-0.125F));
    std::vector<float> x(256);
    dequantize_group_row(format, row, x.data());
    INFO("bits ", format.bits, " group ", format.group, " scales ",
         static_cast<int>(format.scales));
    CHECK(round_trip(format, x) == x);
  }
}

TEST_CASE("quantize_group_row: padding has the code of zero, and scale 0 where no value is") {
  const GroupFormat format{4, 32, GroupScales::f16};
  const std::vector<float> x(40, 1.0F);
  GroupRow row;
  quantize_group_row(format, x.data(), 5, &row);
  CHECK(row.q.size() == 64);
  CHECK(std::all_of(row.q.begin() + 5, row.q.end(), [](uint8_t q) { return q == 8; }));
  CHECK(half_to_float(row.scale[0]) != 0.0F);
  CHECK(row.scale[1] == 0);
  quantize_group_row({4, 128, GroupScales::f16_min}, x.data(), 40, &row);
  CHECK(row.q.size() == 128);
  CHECK(std::all_of(row.q.begin() + 40, row.q.end(), [](uint8_t q) { return q == 0; }));
}

TEST_CASE("quantize_group_row: zeros, constants and tiny values") {
  for (const GroupFormat& format : kFormats) {
    CHECK(round_trip(format, std::vector<float>(128, 0.0F)) == std::vector<float>(128, 0.0F));
    // 0.75 is an f16, and so is -0.75 / 8; over 127 it is not: half a step of 2^-11 of it.
    for (float v : round_trip(format, std::vector<float>(128, 0.75F))) {
      CHECK(v == doctest::Approx(0.75).epsilon(0x1p-11));
    }
    // Below half of the least f16 (2^-25) a scale is 0; what is lost is as small.
    for (float v : round_trip(format, std::vector<float>(128, 1e-9F))) CHECK(std::fabs(v) <= 1e-8F);
  }
}

TEST_CASE("quantize_group_row: NaN counts as 0, what f16 cannot hold is cut") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const GroupFormat& format : kFormats) {
    std::vector<float> x(128, 0.0F);
    x[1] = std::nanf("");
    x[2] = inf;
    x[3] = -inf;
    x[4] = 3e38F;
    const std::vector<float> y = round_trip(format, x);
    // A step of 4 bits is 131008 / 15 at most, of which half may be lost; the positive end of the
    // symmetric codes is a step short.
    for (float v : y) CHECK(std::isfinite(v));
    CHECK(std::fabs(y[1]) <= 4400.0F);
    CHECK(y[2] >= 65504.0F * 0.8F);
    CHECK(y[3] <= -65504.0F * 0.8F);
    CHECK(y[4] == y[2]);
  }
}

TEST_CASE("quantize_groups_s8: each group is a row of its own, with the sum of its codes") {
  std::vector<float> x = gaussian(100, 7);
  x[40] = 12.0F;
  std::vector<int8_t> q(129, 99);
  std::vector<float> scale(4);
  std::vector<int32_t> sum(4);
  quantize_groups_s8(x.data(), 100, 128, 32, q.data(), scale.data(), sum.data());
  for (size_t g = 0; g < 4; ++g) {
    std::vector<int8_t> expected(32, 0);
    const int64_t count = g < 3 ? 32 : 4;
    CHECK(scale[g] == quantize_row_s8(x.data() + 32 * g, count, expected.data()));
    int32_t total = 0;
    for (size_t i = 0; i < 32; ++i) {
      CHECK(q[32 * g + i] == expected[i]);
      total += expected[i];
    }
    CHECK(sum[g] == total);
  }
  CHECK(q[128] == 99);
}

TEST_CASE("quantize_groups_s8: groups of zeros and of padding have scale 1 and sum 0") {
  const std::vector<float> x = {0.0F, 0.0F, std::nanf("")};
  std::vector<int8_t> q(128, 9);
  std::vector<float> scale(2, 0.0F);
  std::vector<int32_t> sum(2, 9);
  quantize_groups_s8(x.data(), 3, 128, 64, q.data(), scale.data(), sum.data());
  CHECK(scale == std::vector<float>{1.0F, 1.0F});
  CHECK(sum == std::vector<int32_t>{0, 0});
  CHECK(q == std::vector<int8_t>(128, 0));
}

}  // namespace qllm
