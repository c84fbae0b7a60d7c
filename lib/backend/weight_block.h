// Blocks of 64 outputs of a weight, as a format in groups stores them.
#pragma once

#include <array>

#include "backend/backend.h"
#include "quant/packing.h"

namespace qllm {

/// One row per output, each of format.padded_k(weight.k) inputs. Reused, it allocates once.
using WeightBlock = std::array<GroupRow, kBlockN>;

/// Rows [row, row+64) of a weight on `format`, which block_format chose: as they stand in the
/// source where they lie on that grid, else quantized. Rows that no span names, and those past
/// weight.n, are zero. `row` is a multiple of 64 below weight.n.
void read_weight_block(const TensorSource& source, const Weight& weight, const GroupFormat& format,
                       int64_t row, WeightBlock* out);

}  // namespace qllm
