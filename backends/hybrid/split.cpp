#include "hybrid/split.h"

#include <algorithm>

#include "backend/packed_linear.h"
#include "core/math.h"
#include "graph/cut.h"
#include "graph/liveness.h"

namespace qllm::hybrid {
namespace {

/// Of a device's memory, beside the plan's buffers: its driver's context, the libraries' work space
/// and what allocators leave unused.
constexpr int64_t kDeviceReserve = int64_t{256} << 20;
/// Without a budget there is room for two sequences of the default context.
constexpr int64_t kPlannedKvTokens = 8192;

constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

int64_t linear_bytes(const Weight& weight, const TensorSource& source, const Scheme& scheme) {
  if (const PackedLinear* packed = source.packed(weight.name)) return packed->layout.bytes();
  if (scheme.kind == SchemeKind::fp32) return weight.n * weight.k * kFloatBytes;
  return packed_layout(scheme, weight, source).bytes();
}

/// Tables are not counted: their rows are gathered from the file.
int64_t weight_bytes(const Graph& graph, const TensorSource& source, const Scheme& scheme) {
  int64_t bytes = 0;
  for (const Weight& w : graph.weights) {
    if (w.role == WeightRole::linear) bytes += linear_bytes(w, source, scheme);
    if (w.role == WeightRole::vector) bytes += w.k * kFloatBytes;
  }
  return bytes;
}

/// Every value as floats, and as much again for its quantized form and its way to the device.
int64_t buffer_bytes(const Graph& graph, const PlanLimits& limits) {
  int64_t bytes = 0;
  for (const BufferPlan::Buffer& b : plan_buffers(graph).buffers) {
    const int64_t rows = b.rows == Rows::tokens ? limits.max_tokens : limits.max_outputs;
    bytes += 2 * rows * b.width * kFloatBytes;
  }
  return bytes;
}

}  // namespace

KvShape kv_shape(const Graph& graph) {
  KvShape shape{layer_count(graph), 0, 0};
  for (const Op& op : graph.ops) {
    const auto* rope = std::get_if<RopeKvWriteOp>(&op);
    if (rope == nullptr) continue;
    shape.n_kv_heads = rope->n_kv_heads;
    shape.head_dim = rope->head_dim;
  }
  return shape;
}

int64_t layers_that_fit(const DeviceRoom& room) {
  int64_t fit = 0;
  for (size_t i = 0; i < room.weights.size(); ++i) {
    const auto layers = static_cast<int64_t>(i) + 1;
    const int64_t left = room.available - room.reserve - room.weights[i];
    // Divided, since a budget for keys and values may be any number.
    if (left >= 0 && (room.kv_per_layer == 0 || left / room.kv_per_layer >= layers)) fit = layers;
  }
  return fit;
}

DeviceRoom device_room(const Graph& graph, const TensorSource& source, const Backend& device,
                       const BackendOptions& options) {
  DeviceRoom room;
  const int32_t layers = layer_count(graph);
  for (int32_t layer = layers - 1; layer > 0; --layer) {
    room.weights.push_back(weight_bytes(cut(graph, layer).second, source, options.scheme));
  }
  room.weights.push_back(weight_bytes(graph, source, options.scheme));
  room.reserve = kDeviceReserve + buffer_bytes(graph, options.limits);
  if (options.kv_memory_bytes > 0) {
    room.kv_per_layer = ceil_div(options.kv_memory_bytes, int64_t{layers});
  } else {
    KvShape one = kv_shape(graph);
    one.n_layers = 1;
    room.kv_per_layer = device.kv_block_bytes(one) * (kPlannedKvTokens / kKvBlockTokens);
  }
  return room;
}

}  // namespace qllm::hybrid
