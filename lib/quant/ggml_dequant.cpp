// In the formulas below d and m are binary16 scales, q the stored integer, y the value. Products
// are rounded to float32 one by one, in the order written: that is part of the format.
#include "quant/ggml_dequant.h"

#include <cstring>

#include "core/error.h"
#include "quant/float_bits.h"
#include "quant/ggml_dequant_k.h"

namespace qllm {
namespace {

uint16_t load_u16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

uint32_t load_u32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void row_f16(const std::byte* src, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = half_to_float(load_u16(src + 2 * i));
}

void row_bf16(const std::byte* src, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = bfloat_to_float(load_u16(src + 2 * i));
}

// d, 16 bytes; y = d (q - 8). Low nibbles are values 0..15, high nibbles 16..31.
void block_q4_0(const std::byte* src, float* out) {
  const float d = half_to_float(load_u16(src));
  const auto* qs = reinterpret_cast<const uint8_t*>(src + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((qs[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((qs[i] >> 4) - 8);
  }
}

// d, m, 16 bytes; y = d q + m.
void block_q4_1(const std::byte* src, float* out) {
  const float d = half_to_float(load_u16(src));
  const float m = half_to_float(load_u16(src + 2));
  const auto* qs = reinterpret_cast<const uint8_t*>(src + 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(qs[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(qs[i] >> 4) + m;
  }
}

// The fifth bit of value i is bit i of `high`.
int fifth_bit(uint32_t high, int i) { return static_cast<int>((high >> i) & 1U) << 4; }

// d, 32 high bits, 16 bytes; y = d (q - 16).
void block_q5_0(const std::byte* src, float* out) {
  const float d = half_to_float(load_u16(src));
  const uint32_t high = load_u32(src + 2);
  const auto* qs = reinterpret_cast<const uint8_t*>(src + 6);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(((qs[i] & 15) | fifth_bit(high, i)) - 16);
    out[i + 16] = d * static_cast<float>(((qs[i] >> 4) | fifth_bit(high, i + 16)) - 16);
  }
}

// d, m, 32 high bits, 16 bytes; y = d q + m.
void block_q5_1(const std::byte* src, float* out) {
  const float d = half_to_float(load_u16(src));
  const float m = half_to_float(load_u16(src + 2));
  const uint32_t high = load_u32(src + 4);
  const auto* qs = reinterpret_cast<const uint8_t*>(src + 8);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((qs[i] & 15) | fifth_bit(high, i)) + m;
    out[i + 16] = d * static_cast<float>((qs[i] >> 4) | fifth_bit(high, i + 16)) + m;
  }
}

// d, 32 signed bytes; y = d q.
void block_q8_0(const std::byte* src, float* out) {
  const float d = half_to_float(load_u16(src));
  const auto* qs = reinterpret_cast<const int8_t*>(src + 2);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(qs[i]);
}

template <void (*kBlock)(const std::byte*, float*)>
void row_of_blocks(const GgmlTypeInfo& info, const std::byte* src, int64_t n, float* out) {
  const int64_t blocks = n / info.block_elements;
  for (int64_t b = 0; b < blocks; ++b) {
    kBlock(src + b * info.block_bytes, out + b * info.block_elements);
  }
}

}  // namespace

void dequantize_row(GgmlType type, const std::byte* src, int64_t n, float* out) {
  const GgmlTypeInfo& info = ggml_type_info(type);
  switch (type) {
    case GgmlType::f32:
      std::memcpy(out, src, static_cast<size_t>(n) * sizeof(float));
      return;
    case GgmlType::f16:
      return row_f16(src, n, out);
    case GgmlType::bf16:
      return row_bf16(src, n, out);
    case GgmlType::q4_0:
      return row_of_blocks<block_q4_0>(info, src, n, out);
    case GgmlType::q4_1:
      return row_of_blocks<block_q4_1>(info, src, n, out);
    case GgmlType::q5_0:
      return row_of_blocks<block_q5_0>(info, src, n, out);
    case GgmlType::q5_1:
      return row_of_blocks<block_q5_1>(info, src, n, out);
    case GgmlType::q8_0:
      return row_of_blocks<block_q8_0>(info, src, n, out);
    case GgmlType::q2_k:
      return row_of_blocks<dequantize_block_q2_k>(info, src, n, out);
    case GgmlType::q3_k:
      return row_of_blocks<dequantize_block_q3_k>(info, src, n, out);
    case GgmlType::q4_k:
      return row_of_blocks<dequantize_block_q4_k>(info, src, n, out);
    case GgmlType::q5_k:
      return row_of_blocks<dequantize_block_q5_k>(info, src, n, out);
    case GgmlType::q6_k:
      return row_of_blocks<dequantize_block_q6_k>(info, src, n, out);
  }
  fail(ErrorCode::internal, "ggml type {} cannot be dequantized", static_cast<uint32_t>(type));
}

}  // namespace qllm
