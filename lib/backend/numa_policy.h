// On a machine of several memory nodes: which node's memory holds the weights, and who reads them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qllm {

enum class NumaPolicy : uint8_t {
  split,       ///< each worker's weights on its own node: all nodes' memory, nothing read remotely
  interleave,  ///< pages by turns over all nodes: whoever reads, each node serves an equal part
  local,       ///< workers and memory on one node, the one with the most usable cores
  replicate,   ///< a team and a whole copy of the model per node; sessions are shared out
};

/// "split", "interleave", "local", "replicate"; empty: split. Throws invalid_argument, naming what
/// there is.
NumaPolicy parse_numa_policy(std::string_view name);
std::string to_string(NumaPolicy policy);

}  // namespace qllm
