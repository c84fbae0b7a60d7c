// Attention of one token a sequence, over all that the sequence holds.
#pragma once

#include <cuda_runtime.h>

#include "kernels/attention_shape.h"
#include "step_tables.h"

namespace qllm::cuda {

/// out[t, h] as AttentionOp says (graph.h) for the tokens of all slices that have one; others are
/// left alone. q and out [n_tokens, n_heads * head_dim], q as rope_kv_write made it. `splits` from
/// decode_splits, `workspace` of decode_workspace_bytes (null for one split). The launches depend
/// on the arguments alone, so that a captured graph holds for sequences of any length.
void attention_decode(const AttentionShape& shape, const FloatRows& q, const FloatRows& out,
                      const StepTables& tables, int64_t n_slices, int splits, float* workspace,
                      cudaStream_t stream);

/// The same for the rows of tiles (attention_tiles), by the same kernel: for heads that the kernel
/// of attention_prefill.h has no room for.
void attention_of_tiles(const AttentionShape& shape, const FloatRows& q, const FloatRows& out,
                        const StepTables& tables, const AttentionTile* tiles, int64_t n_tiles,
                        cudaStream_t stream);

}  // namespace qllm::cuda
