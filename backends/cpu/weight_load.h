// Fills shards, all workers at once: packs rows, copies what is packed, or compares what stays in
// a mapped file with its checksums.
#pragma once

#include <vector>

#include "cpu_weights.h"

namespace qllm::cpu {

/// `linears` have their pieces placed. Progress comes from the first worker. Throws what the source
/// throws, bad_format naming a damaged weight, io, cancelled.
void load_shards(const Graph& graph, const TensorSource& source, const VecKernels& vec,
                 const std::vector<ShardedLinear>& linears, WorkerPool& pool,
                 const ProgressFn& progress);

}  // namespace qllm::cpu
