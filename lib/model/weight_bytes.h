// What the weights of a graph weigh once packed under a scheme, before they are loaded.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "graph/graph.h"
#include "quant/scheme.h"

namespace qllm {

struct WeightBytes {
  int64_t in_memory = 0;  // packed linears with their scales and sums, float32 vectors
  int64_t per_step = 0;   // in_memory and one gathered row (float32) for the token
};

/// Elements of all tensors that a graph names, each counted once.
int64_t parameter_count(const Graph& graph);

/// Asks `source` only for grids; fp32 counts the plain matrices.
WeightBytes weight_bytes(const Graph& graph, const Scheme& scheme, const TensorSource& source);

}  // namespace qllm
