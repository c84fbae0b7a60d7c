// Attention of several tokens a sequence.
#pragma once

#include <cuda_runtime.h>

#include "kernels/attention_shape.h"
#include "step_tables.h"

namespace qllm::cuda {

/// out[t, h] as AttentionOp says (graph.h) for the rows of tiles, `tiles` on the device, made by
/// attention_tiles for shape.heads_of_kv(). q and out [n_tokens, n_heads * head_dim], q as
/// rope_kv_write made it, keys and values of the step written. At most 65,535 tiles.
void attention_prefill(const AttentionShape& shape, const FloatRows& q, const FloatRows& out,
                       const StepTables& tables, const AttentionTile* tiles, int64_t n_tiles,
                       cudaStream_t stream);

/// Bytes of shared memory of its thread blocks; 0 for a head that attention_of_tiles takes instead.
int prefill_shared_bytes(const KvGeometry& kv);

}  // namespace qllm::cuda
