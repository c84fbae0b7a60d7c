// The LLaMA architecture as a graph (arXiv 2302.13971; grouped KV heads: arXiv 2305.13245).
#pragma once

#include <memory>

#include "backend/backend.h"
#include "graph/graph.h"
#include "model/config.h"
#include "model/rotation.h"

namespace qllm {

/// Builds the forward pass. Tensors are named as in GGUF files (token_embd.weight,
/// blk.N.attn_q.weight, …). With rotations it is the pass over the tensors of rotate_llama: norms
/// have no gain where the residual is rotated, and the LM head is output.weight though the file's
/// may be tied.
Graph build_llama(const ModelConfig& config, const Rotations& rotations = {});

/// All rotations that the sizes of the model allow.
Rotations llama_rotations(const ModelConfig& config);

/// The tensors of `source` with the rotations folded in. Throws what `source` throws.
std::shared_ptr<const TensorSource> rotate_llama(const ModelConfig& config,
                                                 const Rotations& rotations,
                                                 std::shared_ptr<const TensorSource> source);

}  // namespace qllm
