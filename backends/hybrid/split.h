// How many layers of a model go to a device.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "graph/graph.h"

namespace qllm::hybrid {

/// What an automatic split goes by: bytes of the device's memory.
struct DeviceRoom {
  int64_t available = 0;     // free now
  int64_t reserve = 0;       // what the weights and the KV cache must leave
  int64_t kv_per_layer = 0;  // of keys and values, of all sequences
  std::vector<int64_t>
      weights;  // [layers]: of the last 1, 2, ..., all layers, the LM head included
};

/// The most layers of which weights, keys and values fit.
int64_t layers_that_fit(const DeviceRoom& room);

/// Of a model whose weights would lie packed on the device as `options` say; the rest of the
/// options says what else must fit. `available` is left 0.
DeviceRoom device_room(const Graph& graph, const TensorSource& source, const Backend& device,
                       const BackendOptions& options);

/// Of the keys and values that a graph writes; all of its layers are alike.
KvShape kv_shape(const Graph& graph);

}  // namespace qllm::hybrid
