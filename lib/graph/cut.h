// A graph cut in two between layers, for two devices that each hold some of the model.
#pragma once

#include "graph/graph.h"

namespace qllm {

/// The second part begins with an InputOp, whose value is the first part's result: the one value
/// that crosses. Each has the weights that it uses and counts layers from 0, as its own keys and
/// values do.
struct CutGraph {
  Graph first;
  Graph second;
};

/// How many layers of keys and values a graph writes.
int32_t layer_count(const Graph& graph);

/// `layer` is the first of the second part. Throws invalid_argument where either part would have
/// none, unsupported where more than one value crosses wherever the cut is made.
CutGraph cut(const Graph& graph, int32_t layer);

}  // namespace qllm
