// Fills shards, all workers at once: packs rows, or copies what is packed and compares it with its
// checksums. What stays in a mapped file is left alone.
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
