#include "quant/ggml_grid.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "quant/ggml_dequant_k.h"
#include "quant/group_quant.h"

namespace qllm {
namespace {

uint16_t load_u16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// `half` bytes: low nibbles are the first values, high nibbles those that follow.
void split_nibbles(const std::byte* src, int64_t half, uint8_t* q) {
  for (int64_t i = 0; i < half; ++i) {
    const auto byte = std::to_integer<uint8_t>(src[i]);
    q[i] = byte & 15;
    q[i + half] = byte >> 4;
  }
}

// Q4_0 has a scale before its 16 bytes, Q4_1 a scale and a minimum.
void block_of_4_bits(const std::byte* src, bool has_min, size_t block, GroupRow* out) {
  out->scale[block] = load_u16(src);
  if (has_min) out->min[block] = load_u16(src + 2);
  split_nibbles(src + (has_min ? 4 : 2), 16, out->q.data() + 32 * block);
}

// Signed bytes behind a scale.
void block_q8_0(const std::byte* src, size_t block, GroupRow* out) {
  out->scale[block] = load_u16(src);
  uint8_t* q = out->q.data() + 32 * block;
  for (size_t i = 0; i < 32; ++i) q[i] = std::to_integer<uint8_t>(src[2 + i]) ^ 0x80U;
}

// d, dmin, 12 bytes of scales, then 32 bytes for each two groups.
void block_q4_k(const std::byte* src, size_t block, GroupRow* out) {
  out->scale[block] = load_u16(src);
  out->min[block] = load_u16(src + 2);
  const SubScales sub = sub_scales_q4_k(src + 4);
  const auto at = static_cast<std::ptrdiff_t>(8 * block);
  std::copy(sub.scale.begin(), sub.scale.end(), out->sub_scale.begin() + at);
  std::copy(sub.min.begin(), sub.min.end(), out->sub_min.begin() + at);
  for (size_t pair = 0; pair < 4; ++pair) {
    split_nibbles(src + 16 + 32 * pair, 32, out->q.data() + 256 * block + 64 * pair);
  }
}

}  // namespace

std::optional<GroupFormat> ggml_grid(GgmlType type) {
  switch (type) {
    case GgmlType::q4_0:
      return GroupFormat{4, 32, GroupScales::f16};
    case GgmlType::q4_1:
      return GroupFormat{4, 32, GroupScales::f16_min};
    case GgmlType::q4_k:
      return GroupFormat{4, 32, GroupScales::k_quant};
    case GgmlType::q8_0:
      return GroupFormat{8, 32, GroupScales::f16};
    default:
      return std::nullopt;
  }
}

void read_ggml_grid_row(GgmlType type, const std::byte* src, int64_t n, GroupRow* out) {
  const std::optional<GroupFormat> format = ggml_grid(type);
  const GgmlTypeInfo& info = ggml_type_info(type);
  require(format.has_value(), ErrorCode::internal, "type {} has no grid of groups", info.name);
  zero_group_row(*format, n, out);
  const auto blocks = static_cast<size_t>(n / info.block_elements);
  for (size_t b = 0; b < blocks; ++b, src += info.block_bytes) {
    if (type == GgmlType::q8_0) {
      block_q8_0(src, b, out);
    } else if (type == GgmlType::q4_k) {
      block_q4_k(src, b, out);
    } else {
      block_of_4_bits(src, type == GgmlType::q4_1, b, out);
    }
  }
}

}  // namespace qllm
