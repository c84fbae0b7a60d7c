#include "model/weight_bytes.h"

#include <set>
#include <string>
#include <utility>

#include "quant/packing.h"

namespace qllm {
namespace {

constexpr int64_t kScaleAndSumBytes = 8;  // float32 scale, int32 sum

}  // namespace

WeightBytes weight_bytes_w8a8(const Graph& graph) {
  WeightBytes bytes;
  int64_t gathered = 0;
  std::set<std::pair<std::string, int64_t>>
      counted;  // tensor and its row: a tied table counts once
  for (const Weight& w : graph.weights) {
    switch (w.role) {
      case WeightRole::linear:
        bytes.in_memory += packed_bytes(w.n, w.k) + round_up(w.n, kBlockN) * kScaleAndSumBytes;
        break;
      case WeightRole::vector:
        bytes.in_memory += w.k * static_cast<int64_t>(sizeof(float));
        break;
      case WeightRole::embedding:
        gathered += w.k * static_cast<int64_t>(sizeof(float));
        break;
    }
    for (const RowSpan& span : w.rows) {
      const bool is_vector = w.role == WeightRole::vector;
      if (counted.emplace(span.tensor, span.tensor_row).second)
        bytes.parameters += span.count * (is_vector ? 1 : w.k);
    }
  }
  bytes.per_step = bytes.in_memory + gathered;
  return bytes;
}

}  // namespace qllm
