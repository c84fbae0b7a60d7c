// Columns of rows that several ranks make, packed for an exchange and put back.
#pragma once

#include <cuda_runtime.h>

#include "kernels/deal.h"
#include "step_tables.h"

namespace qllm::cuda {

/// packed[r, c] = columns[r, c], c < columns.width; packed rows are `ld` apart.
void pack_columns(const FloatRows& columns, int64_t rows, float* packed, int64_t ld,
                  cudaStream_t stream);

/// out[r, deal.begin(p) + c] = packed[p, r, c], packed [ranks, rows, deal.most()].
void unpack_columns(const float* packed, const Deal& deal, int64_t rows, const FloatRows& out,
                    cudaStream_t stream);

}  // namespace qllm::cuda
