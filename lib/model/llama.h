// The LLaMA architecture as a graph (arXiv 2302.13971; grouped KV heads: arXiv 2305.13245).
#pragma once

#include <string>

#include "graph/graph.h"
#include "model/config.h"

namespace qllm {

/// Builds the forward pass. Tensors are named as in GGUF files (token_embd.weight,
/// blk.N.attn_q.weight, …).
Graph build_llama(const ModelConfig& config);

}  // namespace qllm
