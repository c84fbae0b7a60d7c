// Rows of GGUF tensors to float32, exactly as the format specifies (docs/formats.md).
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/ggml_types.h"

namespace qllm {

/// Writes `n` values of a row to `out`. `src` holds n / block_elements blocks and need not be
/// aligned. Precondition: n is a multiple of the type's block_elements.
void dequantize_row(GgmlType type, const std::byte* src, int64_t n, float* out);

}  // namespace qllm
