// Where the weights lie and who reads them, asked of the kernel.
#pragma once

#include "cpu_weights.h"
#include "page_nodes.h"
#include "qllm/qllm.hpp"
#include "topology.h"

namespace qllm::cpu {

/// What each worker reads in a step: its shards of all linears. [workers]
std::vector<NodeBytes> nodes_of_shards(const CpuWeights& weights, int workers);

/// Summed up for people; `policy` is left to the caller.
PlacementInfo describe_placement(const std::vector<NodeBytes>& shards, const Topology& topology);

}  // namespace qllm::cpu
