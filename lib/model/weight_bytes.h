// What the weights of a graph weigh once packed as W8A8, before they are loaded.
#pragma once

#include <cstdint>

#include "graph/graph.h"

namespace qllm {

struct WeightBytes {
  int64_t in_memory = 0;   // packed linears with a scale and a sum per output, float32 vectors
  int64_t per_step = 0;    // in_memory and one gathered row (float32) for the token
  int64_t parameters = 0;  // elements of all tensors, each counted once
};

WeightBytes weight_bytes_w8a8(const Graph& graph);

}  // namespace qllm
