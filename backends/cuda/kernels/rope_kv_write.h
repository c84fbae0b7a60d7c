// From rows of q, k and v to rotated queries, and to keys and values in the blocks of their
// sequences.
#pragma once

#include <cuda_runtime.h>

#include "graph/graph.h"
#include "kernels/kv_layout.h"
#include "step_tables.h"

namespace qllm::cuda {

struct RopeShape {
  KvGeometry kv;
  int32_t layer = 0;
  int32_t n_heads = 0;
  RopeStyle style = RopeStyle::adjacent;
  int32_t half = 0;                 // rotary_dim / 2; 2 half <= head_dim
  const float* inv_freq = nullptr;  // [half], on the device
};

/// As RopeKvWriteOp says (graph.h): qkv [n_tokens, (n_heads + 2 n_kv_heads) * head_dim] to q
/// [n_tokens, n_heads * head_dim] and to the token's block; keys and queries turned where
/// kv.turns_keys(). Precondition: head_dim at most kKvMaxHeadDim, and room in the tables' blocks.
void rope_kv_write(const RopeShape& shape, const FloatRows& qkv, const FloatRows& q,
                   const StepTables& tables, int64_t n_tokens, cudaStream_t stream);

/// Heads (of q, k and v) that a thread block makes, a warp each at a time, for `n_tokens`: all
/// share the angles of their token, few tokens need many thread blocks.
int rope_heads_of_block(int64_t n_tokens, int heads);

/// Makes all numbers of a block finite, as they would have been written: for bytes from outside.
void make_kv_finite(const KvGeometry& kv, std::byte* block, cudaStream_t stream);

}  // namespace qllm::cuda
