#include "backend/weight_block.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "quant/float_bits.h"
#include "quant/group_quant.h"
#include "support/errors.h"

namespace qllm {
namespace {

constexpr int64_t kK = 96;
constexpr GroupFormat kQ41{4, 32, GroupScales::f16_min};
constexpr GroupFormat kQ80{8, 32, GroupScales::f16};

/// Tensors "plain…" are floats only; "q41…" and "q80…" also lie on that grid, with codes that
/// depend on the row. Rows are of `width` values.
class FakeSource final : public TensorSource {
 public:
  explicit FakeSource(int64_t width = kK) : width_(width) {}
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override {
    for (int64_t r = row; r < row + count; ++r, out += width_) {
      if (grid(tensor)) {
        GroupRow on_grid;
        read_grid_row(tensor, r, &on_grid);
        dequantize_group_row(*grid(tensor), on_grid, out);
      } else {
        for (int64_t i = 0; i < width_; ++i) out[i] = std::sin(static_cast<float>(r * 100 + i));
      }
    }
  }
  std::optional<GroupFormat> grid(const std::string& tensor) const override {
    if (tensor.starts_with("q41")) return kQ41;
    if (tensor.starts_with("q80")) return kQ80;
    return std::nullopt;
  }
  void read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const override {
    const GroupFormat format = *grid(tensor);
    zero_group_row(format, width_, out);
    for (int64_t i = 0; i < width_; ++i) {
      out->q[static_cast<size_t>(i)] = static_cast<uint8_t>((i * 7 + row) % (1 << format.bits));
    }
    std::fill(out->scale.begin(), out->scale.end(), float_to_half(0.03F));
    std::fill(out->min.begin(), out->min.end(), float_to_half(-0.2F));
  }

 private:
  int64_t width_;
};

/// 200 outputs: two blocks of q41, a block half of q41 and half of q80, one with a gap.
Weight mixed() {
  Weight weight{"w", WeightRole::linear, 200, kK, {}};
  weight.rows = {{"q41.a", 0, 0, 100}, {"q41.b", 3, 100, 60}, {"q80", 0, 160, 30}};
  return weight;
}

Weight whole(const std::string& tensor, int64_t n) {
  return {"w", WeightRole::linear, n, kK, {{tensor, 0, 0, n}}};
}

std::vector<float> values_of(const GroupFormat& format, const WeightBlock& block) {
  std::vector<float> out;
  for (const GroupRow& row : block) {
    std::vector<float> values(row.q.size());
    dequantize_group_row(format, row, values.data());
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

WeightFormat groups(const GroupFormat& format) { return {WeightFormat::Kind::groups, format}; }

}  // namespace

TEST_CASE("block_format: fp32, int8 and int4 ask nothing of the source") {
  const FakeSource source;
  const Weight weight = whole("q41", 64);
  CHECK(block_format({SchemeKind::fp32}, weight, source, 0).kind == WeightFormat::Kind::f32);
  CHECK(block_format({SchemeKind::int8}, weight, source, 0).kind == WeightFormat::Kind::row_int8);
  CHECK(block_format({SchemeKind::int4, 64, true}, weight, source, 0) ==
        groups({4, 64, GroupScales::f16_min}));
  CHECK(block_format({SchemeKind::int4, 128, false}, weight, source, 0) ==
        groups({4, 128, GroupScales::f16}));
}

TEST_CASE("block_format: blocks with a sensitive row take two terms of int8, under int8 only") {
  const FakeSource source;
  Weight weight{"w", WeightRole::linear, 192, kK, {{"q41", 0, 0, 100}, {"q41", 0, 100, 28}}};
  weight.rows[1].sensitive = true;
  const auto terms = [&](const Scheme& scheme, int64_t row) {
    return int{block_format(scheme, weight, source, row).terms};
  };
  CHECK(terms({SchemeKind::int8}, 0) == 1);
  CHECK(terms({SchemeKind::int8}, 64) == 2);
  CHECK(terms({SchemeKind::int8}, 128) == 1);
  CHECK(terms({SchemeKind::int4}, 64) == 1);
  CHECK(terms({SchemeKind::keep}, 64) == 1);
  CHECK(terms({SchemeKind::fp32}, 64) == 1);
}

TEST_CASE("block_format: the LM head is int8 under int4, on its grid under keep") {
  Weight head = whole("q41", 64);
  head.lm_head = true;
  const FakeSource source;
  CHECK(block_format({SchemeKind::int4}, head, source, 0).kind == WeightFormat::Kind::row_int8);
  CHECK(block_format({SchemeKind::keep}, head, source, 0) == groups(kQ41));
}

TEST_CASE("block_format: keep takes the grid that all spans of a block share") {
  const FakeSource source;
  const Weight weight = mixed();
  const Scheme keep{SchemeKind::keep};
  CHECK(block_format(keep, weight, source, 0) == groups(kQ41));
  CHECK(block_format(keep, weight, source, 64) == groups(kQ41));   // two tensors, one grid
  CHECK(block_format(keep, weight, source, 128) == groups(kQ80));  // two grids
  CHECK(block_format(keep, whole("plain", 64), source, 0) == groups(kQ80));
  CHECK(block_format(keep, {"w", WeightRole::linear, 64, kK, {}}, source, 0) == groups(kQ80));
}

TEST_CASE("read_weight_block: rows on the grid come as they stand, padded") {
  const FakeSource source;
  WeightBlock block;
  read_weight_block(source, mixed(), kQ41, 64, &block);
  for (int64_t r = 0; r < 64; ++r) {
    GroupRow expected;
    if (r < 36) source.read_grid_row("q41.a", 64 + r, &expected);
    if (r >= 36) source.read_grid_row("q41.b", 3 + r - 36, &expected);
    pad_group_row(kQ41, 128, &expected);
    const GroupRow& row = block[static_cast<size_t>(r)];
    CHECK(row.q == expected.q);
    CHECK(row.scale == expected.scale);
    CHECK(row.min == expected.min);
  }
}

TEST_CASE("read_weight_block: what lies on another grid is quantized, gaps are zero") {
  const FakeSource source;
  WeightBlock block;
  read_weight_block(source, mixed(), kQ80, 128, &block);
  const std::vector<float> values = values_of(kQ80, block);
  std::vector<float> expected(kK);
  for (int64_t r = 0; r < 64; ++r) {
    std::fill(expected.begin(), expected.end(), 0.0F);
    if (r < 62) read_weight_rows(source, mixed(), 128 + r, 1, expected.data());
    for (int64_t i = 0; i < 128; ++i) {
      const float w = i < kK ? expected[static_cast<size_t>(i)] : 0.0F;
      // Half a step, and 127 steps each of which the rounding to f16 moved by 2^-11.
      const bool is_quantized = r < 32 && i < kK;
      const float bound = is_quantized ? 0.26F / 127 * (0.5F + 127 * 0x1p-11F) + 1e-6F : 0.0F;
      CHECK(std::fabs(values[static_cast<size_t>(r * 128 + i)] - w) <= bound);
    }
  }
}

TEST_CASE("read_weight_block: the last block ends in rows of zeros") {
  WeightBlock block;
  read_weight_block(FakeSource(), whole("plain", 70), {4, 64, GroupScales::f16_min}, 64, &block);
  const std::vector<float> values = values_of({4, 64, GroupScales::f16_min}, block);
  CHECK(std::any_of(values.begin(), values.begin() + 6 * 128, [](float v) { return v != 0; }));
  CHECK(std::all_of(values.begin() + 6 * 128, values.end(), [](float v) { return v == 0; }));
}

TEST_CASE("read_weight_block: a block outside, and grid rows of another length, are refused") {
  WeightBlock block;
  for (int64_t row : {-64, 32, 128}) {
    test::check_error(ErrorCode::invalid_argument, "weight w", [&] {
      read_weight_block(FakeSource(), whole("q41", 128), kQ41, row, &block);
    });
  }
  test::check_error(ErrorCode::bad_format, "rows of 64 weights, expected 96",
                    [&] { read_weight_block(FakeSource(64), whole("q41", 64), kQ41, 0, &block); });
}

}  // namespace qllm
