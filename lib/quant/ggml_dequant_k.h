// The blocks of 256 values ("K quants"): a scale for the block, small integer scales for its parts.
#pragma once

#include <cstddef>

namespace qllm {

/// Each writes the 256 values of one block to `out`; `src` need not be aligned.
void dequantize_block_q2_k(const std::byte* src, float* out);
void dequantize_block_q3_k(const std::byte* src, float* out);
void dequantize_block_q4_k(const std::byte* src, float* out);
void dequantize_block_q5_k(const std::byte* src, float* out);
void dequantize_block_q6_k(const std::byte* src, float* out);

}  // namespace qllm
