#include "quant/group_quant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "quant/float_bits.h"
#include "quant/int8.h"

namespace qllm {
namespace {

constexpr int64_t kMaxGroup = 128;
constexpr int kLanes = 8;  // independent partial sums, so that the compiler may use vectors
constexpr float kLargestHalf = 65504.0F;

/// The values of one group, made finite.
struct Group {
  std::array<float, kMaxGroup> v;
  size_t size = 0;
  float low = 0.0F;
  float high = 0.0F;
};

float finite(float x) {
  const float low = x > -kLargestHalf ? x : -kLargestHalf;  // NaN: -65504, mended below
  const float cut = low < kLargestHalf ? low : kLargestHalf;
  return std::isnan(x) ? 0.0F : cut;
}

Group read_group(const float* x, int64_t size) {
  Group g;
  g.size = static_cast<size_t>(size);
  std::array<float, kLanes> low;
  std::array<float, kLanes> high;
  low.fill(finite(x[0]));
  high.fill(low[0]);
  const auto take = [&](size_t i, size_t lane) {
    const float v = finite(x[i]);
    g.v[i] = v;
    low[lane] = v < low[lane] ? v : low[lane];
    high[lane] = v > high[lane] ? v : high[lane];
  };
  const size_t whole = g.size - g.size % kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) take(i + j, j);
  }
  for (size_t i = whole; i < g.size; ++i) take(i, 0);
  g.low = *std::min_element(low.begin(), low.end());
  g.high = *std::max_element(high.begin(), high.end());
  return g;
}

/// Integers from..to, and the value scale * code + min of each.
struct Grid {
  float from = 0.0F;
  float to = 0.0F;
  float scale = 0.0F;
  float min = 0.0F;
};

/// The nearest code of a value on a grid whose scale is 1 / inv (inv = 0: no codes but 0). Adding
/// 1.5 * 2^23 rounds to even what is below 2^22.
float nearest_code(float v, const Grid& grid, float inv) {
  constexpr float kRounder = 12582912.0F;
  const float x = (v - grid.min) * inv;
  const float low = x > grid.from ? x : grid.from;
  const float cut = low < grid.to ? low : grid.to;
  return (cut + kRounder) - kRounder;
}

float inverse(float scale) { return scale != 0.0F ? 1.0F / scale : 0.0F; }

float sum_lanes(const std::array<float, kLanes>& lanes) {
  return std::accumulate(lanes.begin(), lanes.end(), 0.0F);
}

float squared_error(const Group& g, const Grid& grid) {
  const float inv = inverse(grid.scale);
  const auto square = [&](float v) {
    const float e = nearest_code(v, grid, inv) * grid.scale + grid.min - v;
    return e * e;
  };
  std::array<float, kLanes> lanes{};
  const size_t whole = g.size - g.size % kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += square(g.v[i + j]);
  }
  for (size_t i = whole; i < g.size; ++i) lanes[0] += square(g.v[i]);
  return sum_lanes(lanes);
}

float round_to_half(float value) {
  return half_to_float(float_to_half(std::clamp(value, -kLargestHalf, kLargestHalf)));
}

Grid rounded(Grid grid) {
  grid.scale = round_to_half(grid.scale);
  grid.min = round_to_half(grid.min);
  return grid;
}

/// The first of the candidates whose error is least.
class BestGrid {
 public:
  BestGrid(const Group& group, const Grid& first)
      : group_(group), best_(first), error_(squared_error(group, first)) {}
  void offer(const Grid& grid) {
    const float error = squared_error(group_, grid);
    if (error < error_) {
      error_ = error;
      best_ = grid;
    }
  }
  const Grid& grid() const { return best_; }

 private:
  const Group& group_;
  Grid best_;
  float error_;
};

// Few codes: leaving the outermost values out makes the steps for all others finer.
constexpr std::array<float, 3> kShrink = {0.95F, 0.9F, 0.85F};

// The whole range; 4 bits: or a part of it about the same centre.
Grid fit_with_min(const Group& g, int bits) {
  const auto top = static_cast<float>((1 << bits) - 1);
  const float range = g.high - g.low;
  const Grid whole = rounded({0.0F, top, range / top, g.low});
  if (bits == 8) return whole;
  BestGrid best(g, whole);
  for (float part : kShrink) {
    best.offer(rounded({0.0F, top, part * range / top, g.low + 0.5F * (1.0F - part) * range}));
  }
  return best.grid();
}

// 8 bits: -127..127. 4 bits: -8..7, the end of the longer side on the value farthest from 0, so
// that the scale may be negative; or on a part of it; or the end of the shorter side.
Grid fit_symmetric(const Group& g, int bits) {
  const float most = -g.low > g.high ? g.low : g.high;
  if (bits == 8) return rounded({-127.0F, 127.0F, std::fabs(most) / 127.0F, 0.0F});
  BestGrid best(g, rounded({-8.0F, 7.0F, most / -8.0F, 0.0F}));
  for (float part : kShrink) best.offer(rounded({-8.0F, 7.0F, part * most / -8.0F, 0.0F}));
  best.offer(rounded({-8.0F, 7.0F, most / 7.0F, 0.0F}));
  return best.grid();
}

void write_codes(const Group& g, const Grid& grid, int32_t zero, uint8_t* q) {
  const float inv = inverse(grid.scale);
  for (size_t i = 0; i < g.size; ++i) {
    const float code = nearest_code(g.v[i], grid, inv);
    q[i] = static_cast<uint8_t>(static_cast<int32_t>(code) + zero);
  }
}

}  // namespace

void zero_group_row(const GroupFormat& format, int64_t k_padded, GroupRow* out) {
  out->q.clear();
  out->scale.clear();
  out->min.clear();
  out->sub_scale.clear();
  out->sub_min.clear();
  pad_group_row(format, k_padded, out);
}

void pad_group_row(const GroupFormat& format, int64_t k_padded, GroupRow* row) {
  const bool is_k_quant = format.scales == GroupScales::k_quant;
  const auto groups = static_cast<size_t>(k_padded / format.group);
  const auto scales = static_cast<size_t>(k_padded / format.record_k());
  row->q.resize(static_cast<size_t>(k_padded), static_cast<uint8_t>(format.zero()));
  row->scale.resize(scales);
  row->min.resize(format.scales == GroupScales::f16 ? 0 : scales);
  row->sub_scale.resize(is_k_quant ? groups : 0);
  row->sub_min.resize(is_k_quant ? groups : 0);
}

void quantize_group_row(const GroupFormat& format, const float* x, int64_t k, GroupRow* out) {
  zero_group_row(format, format.padded_k(k), out);
  const bool has_min = format.scales == GroupScales::f16_min;
  for (int64_t begin = 0; begin < k; begin += format.group) {
    const auto index = static_cast<size_t>(begin / format.group);
    const int64_t count = std::min<int64_t>(format.group, k - begin);
    const Group g = read_group(x + begin, count);
    const Grid grid = has_min ? fit_with_min(g, format.bits) : fit_symmetric(g, format.bits);
    out->scale[index] = float_to_half(grid.scale);
    if (has_min) out->min[index] = float_to_half(grid.min);
    write_codes(g, grid, format.zero(), out->q.data() + begin);
  }
}

GroupScale group_scale(const GroupFormat& format, const GroupRow& row, int64_t group) {
  const auto g = static_cast<size_t>(group);
  if (format.scales == GroupScales::k_quant) {
    return {half_to_float(row.scale[g / 8]) * static_cast<float>(row.sub_scale[g]),
            -(half_to_float(row.min[g / 8]) * static_cast<float>(row.sub_min[g]))};
  }
  const bool has_min = format.scales == GroupScales::f16_min;
  return {half_to_float(row.scale[g]), has_min ? half_to_float(row.min[g]) : 0.0F};
}

void dequantize_group_row(const GroupFormat& format, const GroupRow& row, float* out) {
  const auto k = static_cast<int64_t>(row.q.size());
  const bool has_min = format.scales != GroupScales::f16;
  for (int64_t begin = 0; begin < k; begin += format.group) {
    const GroupScale s = group_scale(format, row, begin / format.group);
    for (int64_t i = begin; i < std::min(begin + format.group, k); ++i) {
      const int32_t q = int32_t{row.q[static_cast<size_t>(i)]} - format.zero();
      const float product = s.scale * static_cast<float>(q);
      out[i] =
          has_min ? product + s.min : product;  // without: -0 stays -0, as the file's type has it
    }
  }
}

void quantize_groups_s8(const float* x, int64_t k, int64_t k_padded, int64_t group, int8_t* q,
                        float* scale, int32_t* sum) {
  std::fill(q, q + k_padded, int8_t{0});
  for (int64_t begin = 0, g = 0; begin < k_padded; begin += group, ++g) {
    const int64_t count = std::clamp<int64_t>(k - begin, 0, group);
    scale[g] = quantize_row_s8(x + begin, count, q + begin);
    sum[g] = std::accumulate(q + begin, q + begin + group, int32_t{0});
  }
}

}  // namespace qllm
