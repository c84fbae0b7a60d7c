#include "model/weight_bytes.h"

#include <set>
#include <string>
#include <utility>

#include "quant/packing.h"

namespace qllm {
namespace {

constexpr int64_t kScaleAndSumBytes = 8;  // float32 scale, int32 sum

int64_t block_bytes(const WeightFormat& format, int64_t k) {
  switch (format.kind) {
    case WeightFormat::Kind::f32:
      return kBlockN * k * static_cast<int64_t>(sizeof(float));
    case WeightFormat::Kind::row_int8:
      return format.terms * (packed_bytes(kBlockN, k) + kBlockN * kScaleAndSumBytes);
    case WeightFormat::Kind::groups:
      return format.groups.column_bytes(format.groups.padded_k(k));
  }
  return 0;
}

int64_t linear_bytes(const Weight& w, const Scheme& scheme, const TensorSource& source) {
  if (scheme.kind == SchemeKind::fp32) return w.n * w.k * static_cast<int64_t>(sizeof(float));
  int64_t bytes = 0;
  for (int64_t row = 0; row < w.n; row += kBlockN) {
    bytes += block_bytes(block_format(scheme, w, source, row), w.k);
  }
  return bytes;
}

}  // namespace

int64_t parameter_count(const Graph& graph) {
  int64_t parameters = 0;
  std::set<std::pair<std::string, int64_t>>
      counted;  // tensor and its row: a tied table counts once
  for (const Weight& w : graph.weights) {
    for (const RowSpan& span : w.rows) {
      const bool is_vector = w.role == WeightRole::vector;
      if (!counted.emplace(span.tensor, span.tensor_row).second) continue;
      parameters += span.count * (is_vector ? 1 : w.k);
    }
  }
  return parameters;
}

WeightBytes weight_bytes(const Graph& graph, const Scheme& scheme, const TensorSource& source) {
  WeightBytes bytes;
  int64_t gathered = 0;
  for (const Weight& w : graph.weights) {
    switch (w.role) {
      case WeightRole::linear:
        bytes.in_memory += linear_bytes(w, scheme, source);
        break;
      case WeightRole::vector:
        bytes.in_memory += w.k * static_cast<int64_t>(sizeof(float));
        break;
      case WeightRole::embedding:
        gathered += w.k * static_cast<int64_t>(sizeof(float));
        break;
    }
  }
  bytes.per_step = bytes.in_memory + gathered;
  return bytes;
}

}  // namespace qllm
