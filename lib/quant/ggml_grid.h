// Rows of GGUF tensors as they stand on their grid of groups (quant/group.h): no value changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "quant/ggml_types.h"
#include "quant/group.h"

namespace qllm {

/// The grid of a type: Q4_0, Q4_1, Q4_K and Q8_0 have one.
std::optional<GroupFormat> ggml_grid(GgmlType type);

/// `n` values of a row, unpadded; dequantize_group_row gives what dequantize_row gives, bit for
/// bit. `src` need not be aligned. Preconditions: the type has a grid, n is a multiple of its
/// block_elements.
void read_ggml_grid_row(GgmlType type, const std::byte* src, int64_t n, GroupRow* out);

}  // namespace qllm
