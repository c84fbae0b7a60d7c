#include "backend/weight_block.h"

#include <algorithm>

#include "core/error.h"
#include "quant/group_quant.h"

namespace qllm {
namespace {

constexpr GroupFormat kInt8Groups{8, 32, GroupScales::f16};  // Q8_0's grid

/// The rows of a block that a span names: [begin, end) of the weight.
struct Overlap {
  int64_t begin;
  int64_t end;
};

Overlap overlap(const RowSpan& span, int64_t row) {
  return {std::max(row, span.row), std::min(row + kBlockN, span.row + span.count)};
}

WeightFormat in_groups(const GroupFormat& groups) { return {WeightFormat::Kind::groups, groups}; }

GroupFormat common_grid(const Weight& weight, const TensorSource& source, int64_t row) {
  std::optional<GroupFormat> common;
  for (const RowSpan& span : weight.rows) {
    const Overlap rows = overlap(span, row);
    if (rows.begin >= rows.end) continue;
    const std::optional<GroupFormat> grid = source.grid(span.tensor);
    if (!grid || (common && *common != *grid)) return kInt8Groups;
    common = grid;
  }
  return common.value_or(kInt8Groups);
}

bool has_sensitive_row(const Weight& weight, int64_t row) {
  return std::any_of(weight.rows.begin(), weight.rows.end(), [row](const RowSpan& span) {
    const Overlap rows = overlap(span, row);
    return span.sensitive && rows.begin < rows.end;
  });
}

void read_quantized(const TensorSource& source, const RowSpan& span, const Overlap& rows, int64_t k,
                    const GroupFormat& format, GroupRow* out) {
  std::vector<float> values(static_cast<size_t>(k));
  for (int64_t r = rows.begin; r < rows.end; ++r, ++out) {
    source.read_rows(span.tensor, span.tensor_row + (r - span.row), 1, values.data());
    quantize_group_row(format, values.data(), k, out);
  }
}

void read_from_grid(const TensorSource& source, const RowSpan& span, const Overlap& rows, int64_t k,
                    const GroupFormat& format, GroupRow* out) {
  for (int64_t r = rows.begin; r < rows.end; ++r, ++out) {
    source.read_grid_row(span.tensor, span.tensor_row + (r - span.row), out);
    require(static_cast<int64_t>(out->q.size()) == k, ErrorCode::bad_format,
            "tensor {}: rows of {} weights, expected {}", span.tensor, out->q.size(), k);
    pad_group_row(format, format.padded_k(k), out);
  }
}

}  // namespace

WeightFormat block_format(const Scheme& scheme, const Weight& weight, const TensorSource& source,
                          int64_t row) {
  switch (scheme.kind) {
    case SchemeKind::fp32:
      return {WeightFormat::Kind::f32, {}};
    case SchemeKind::int8:
      return {WeightFormat::Kind::row_int8,
              {},
              static_cast<int8_t>(has_sensitive_row(weight, row) ? 2 : 1)};
    case SchemeKind::int4:
      if (weight.lm_head) return {WeightFormat::Kind::row_int8, {}};
      return in_groups({4, scheme.group, scheme.has_min ? GroupScales::f16_min : GroupScales::f16});
    case SchemeKind::keep:
      return in_groups(common_grid(weight, source, row));
  }
  fail(ErrorCode::internal, "weight {}: unknown scheme", weight.name);
}

void read_weight_block(const TensorSource& source, const Weight& weight, const GroupFormat& format,
                       int64_t row, WeightBlock* out) {
  require(row >= 0 && row < weight.n && row % kBlockN == 0, ErrorCode::invalid_argument,
          "weight {}: no block of {} rows begins at row {} of {}", weight.name, kBlockN, row,
          weight.n);
  for (GroupRow& r : *out) zero_group_row(format, format.padded_k(weight.k), &r);
  for (const RowSpan& span : weight.rows) {
    const Overlap rows = overlap(span, row);
    if (rows.begin >= rows.end) continue;
    const bool is_on_grid = source.grid(span.tensor) == format;
    require(is_on_grid || format.scales != GroupScales::k_quant, ErrorCode::internal,
            "weight {}: {} is not stored by super-blocks", weight.name, span.tensor);
    auto* first = out->data() + (rows.begin - row);
    (is_on_grid ? read_from_grid : read_quantized)(source, span, rows, weight.k, format, first);
  }
}

}  // namespace qllm
