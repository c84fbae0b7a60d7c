// The blocks of 256 values ("K quants"): a scale for the block, small integer scales for its parts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace qllm {

/// Each writes the 256 values of one block to `out`; `src` need not be aligned.
void dequantize_block_q2_k(const std::byte* src, float* out);
void dequantize_block_q3_k(const std::byte* src, float* out);
void dequantize_block_q4_k(const std::byte* src, float* out);
void dequantize_block_q5_k(const std::byte* src, float* out);
void dequantize_block_q6_k(const std::byte* src, float* out);

/// Eight 6-bit scales and eight 6-bit minima of a Q4_K or Q5_K block, 0..63.
struct SubScales {
  std::array<uint8_t, 8> scale;
  std::array<uint8_t, 8> min;
};

/// Unpacks them from their 12 bytes.
SubScales sub_scales_q4_k(const std::byte* packed);

}  // namespace qllm
