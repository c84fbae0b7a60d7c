#include "model/synthetic.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"

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

}  // namespace

SyntheticSource::SyntheticSource(const Graph& graph, uint64_t seed) : seed_(seed) {
  for (const Weight& weight : graph.weights) {
    for (const RowSpan& span : weight.rows) {
      const bool is_vector = weight.role == WeightRole::vector;
      tensors_[span.tensor] = {is_vector ? span.count : weight.k, is_vector};
    }
  }
}

void SyntheticSource::read_rows(const std::string& tensor, int64_t row, int64_t count,
                                float* out) const {
  const auto it = tensors_.find(tensor);
  require(it != tensors_.end(), ErrorCode::not_found, "synthetic model: no tensor {}", tensor);
  const auto [width, is_vector] = it->second;
  if (is_vector) {
    std::fill(out, out + width * count, 1.0F);
    return;
  }
  const uint64_t base = seed_ ^ hash_name(tensor);
  for (int64_t r = 0; r < count; ++r) {
    fill_row(base + static_cast<uint64_t>(row + r) * 0xD1342543DE82EF95ULL, width, out + r * width);
  }
}

}  // namespace qllm
