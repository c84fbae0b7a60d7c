#include "model/synthetic.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "quant/float_bits.h"
#include "quant/group_quant.h"

namespace qllm {
namespace {

uint64_t hash_name(const std::string& name) {  // FNV-1a
  uint64_t h = 0xCBF29CE484222325ULL;
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3ULL;
  return h;
}

void fill_row(uint64_t seed, int64_t n, float* out) {
  uint64_t state = seed;
  // uniform on [-a, a] has the standard deviation a / sqrt(3)
  const float step = std::sqrt(3.0F / static_cast<float>(n)) / 32768.0F;
  for (int64_t i = 0; i < n; i += 4) {
    uint64_t bits = split_mix(&state);
    for (int64_t j = i; j < std::min(i + 4, n); ++j, bits >>= 16) {
      out[j] = step * static_cast<float>(static_cast<int16_t>(bits));
    }
  }
}

/// Codes uniform on 0..15, one scale: the standard deviation of a row's weights is 1 / sqrt(n).
void fill_grid_row(uint64_t seed, const GroupFormat& format, int64_t n, GroupRow* out) {
  uint64_t state = seed;
  const auto count = static_cast<size_t>(n);
  const size_t groups =
      (count + static_cast<size_t>(format.group) - 1) / static_cast<size_t>(format.group);
  // sqrt((16^2 - 1) / 12) is the standard deviation of the codes
  const float scale = std::sqrt(12.0F / (255.0F * static_cast<float>(n)));
  out->q.resize(count);
  for (size_t i = 0; i < count; i += 16) {
    uint64_t bits = split_mix(&state);
    for (size_t j = i; j < std::min(i + 16, count); ++j, bits >>= 4) {
      out->q[j] = static_cast<uint8_t>(bits & 15U);
    }
  }
  out->scale.assign(groups, float_to_half(scale));
  const bool has_min = format.scales == GroupScales::f16_min;
  out->min.assign(has_min ? groups : 0, float_to_half(-7.5F * scale));
}

}  // namespace

SyntheticSource::SyntheticSource(const Graph& graph, uint64_t seed, std::optional<GroupFormat> grid)
    : seed_(seed), grid_(grid) {
  for (const Weight& weight : graph.weights) {
    for (const RowSpan& span : weight.rows) {
      const bool is_vector = weight.role == WeightRole::vector;
      tensors_[span.tensor] = {is_vector ? span.count : weight.k, is_vector};
    }
  }
}

const SyntheticSource::Tensor& SyntheticSource::find(const std::string& tensor) const {
  const auto it = tensors_.find(tensor);
  require(it != tensors_.end(), ErrorCode::not_found, "synthetic model: no tensor {}", tensor);
  return it->second;
}

uint64_t SyntheticSource::row_seed(const std::string& tensor, int64_t row) const {
  return (seed_ ^ hash_name(tensor)) + static_cast<uint64_t>(row) * 0xD1342543DE82EF95ULL;
}

std::optional<GroupFormat> SyntheticSource::grid(const std::string& tensor) const {
  const auto it = tensors_.find(tensor);
  return it != tensors_.end() && !it->second.is_vector ? grid_ : std::nullopt;
}

void SyntheticSource::read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const {
  const Tensor& t = find(tensor);
  if (!grid_ || t.is_vector) return TensorSource::read_grid_row(tensor, row, out);
  fill_grid_row(row_seed(tensor, row), *grid_, t.width, out);
}

void SyntheticSource::read_rows(const std::string& tensor, int64_t row, int64_t count,
                                float* out) const {
  const auto [width, is_vector] = find(tensor);
  if (is_vector) {
    std::fill(out, out + width * count, 1.0F);
    return;
  }
  GroupRow on_grid;
  for (int64_t r = 0; r < count; ++r, out += width) {
    if (!grid_) {
      fill_row(row_seed(tensor, row + r), width, out);
      continue;
    }
    read_grid_row(tensor, row + r, &on_grid);
    const size_t length = on_grid.q.size();
    pad_group_row(*grid_, grid_->padded_k(width), &on_grid);
    std::vector<float> padded(on_grid.q.size());
    dequantize_group_row(*grid_, on_grid, padded.data());
    std::copy_n(padded.begin(), length, out);
  }
}

}  // namespace qllm
