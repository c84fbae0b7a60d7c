// A model whose matrices lie on grids of groups.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "quant/float_bits.h"
#include "quant/group_quant.h"

namespace qllm::test {

/// A synthetic model whose matrices lie on several grids, as those of a mixed GGUF file do: Q, K
/// and V each on another, or on none; gate and up too.
class GridSource final : public TensorSource {
 public:
  GridSource(const Graph& graph, std::shared_ptr<const TensorSource> values)
      : values_(std::move(values)) {
    for (const Weight& w : graph.weights) {
      for (const RowSpan& span : w.rows) width_[span.tensor] = w.k;
    }
  }

  std::optional<GroupFormat> grid(const std::string& tensor) const override {
    using enum GroupScales;
    const bool by_super_blocks = width_.at(tensor) % kSuperBlock == 0;
    const auto has = [&](const char* part) { return tensor.find(part) != std::string::npos; };
    if (width_.at(tensor) % 32 != 0 || has("norm") || has("attn_k")) return std::nullopt;
    if (has("attn_q")) return GroupFormat{4, 32, f16};
    if (has("ffn_down") || has("ffn_gate")) {
      return GroupFormat{4, 32, by_super_blocks ? k_quant : f16_min};
    }
    if (has("ffn_up") || has("attn_v")) return GroupFormat{4, 32, f16_min};
    return GroupFormat{8, 32, f16};
  }

  void read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const override {
    const GroupFormat format = *grid(tensor);
    const int64_t k = width_.at(tensor);
    std::vector<float> x(static_cast<size_t>(k));
    values_->read_rows(tensor, row, 1, x.data());
    const bool by_super_blocks = format.scales == GroupScales::k_quant;
    const GroupFormat plain{4, 32, GroupScales::f16_min};
    quantize_group_row(by_super_blocks ? plain : format, x.data(), k, out);
    out->q.resize(static_cast<size_t>(k));  // without the padding
    if (!by_super_blocks) {
      out->scale.resize(static_cast<size_t>(k / 32));
      if (format.scales == GroupScales::f16_min) {
        out->min.resize(static_cast<size_t>(k / 32));
      }
      return;
    }
    // About as large as the values: scale 2/15 of their range, minimum half of it.
    const auto blocks = static_cast<size_t>(k / kSuperBlock);
    out->scale.assign(blocks, float_to_half(0.0002F));
    out->min.assign(blocks, float_to_half(0.0015F));
    out->sub_scale.clear();
    out->sub_min.clear();
    for (int64_t g = 0; g < k / 32; ++g) {
      out->sub_scale.push_back(static_cast<uint8_t>(20 + (row + 7 * g) % 44));
      out->sub_min.push_back(static_cast<uint8_t>(20 + (3 * row + g) % 44));
    }
  }

  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override {
    if (!grid(tensor)) return values_->read_rows(tensor, row, count, out);
    GroupRow r;
    for (int64_t i = 0; i < count; ++i, out += width_.at(tensor)) {
      read_grid_row(tensor, row + i, &r);
      dequantize_group_row(*grid(tensor), r, out);
    }
  }

 private:
  std::shared_ptr<const TensorSource> values_;
  std::map<std::string, int64_t> width_;
};

}  // namespace qllm::test
