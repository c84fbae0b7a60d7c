#include "quant/group_packing.h"

#include <cstring>

#include "quant/float_bits.h"

namespace qllm {
namespace {

void store_u16(std::byte* p, uint16_t value) { std::memcpy(p, &value, sizeof value); }

float load_half(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return half_to_float(value);
}

// Four neighbouring inputs of an output are four bytes of a line; with 4 bits the next four are
// their high halves.
void pack_codes(const GroupFormat& format, const uint8_t* q, int64_t c, std::byte* codes) {
  const int64_t step = format.bits == 8 ? 4 : 8;
  for (int64_t i = 0; i < format.group; i += step) {
    uint32_t word;
    std::memcpy(&word, q + i, sizeof word);
    if (format.bits == 4) {
      uint32_t high;
      std::memcpy(&high, q + i + 4, sizeof high);
      word |= high << 4;
    }
    std::memcpy(codes + group_code_offset(format.bits, i, c), &word, sizeof word);
  }
}

void pack_scales(const GroupFormat& format, const GroupRow& row, size_t group, int64_t c,
                 std::byte* column) {
  const auto g = static_cast<int64_t>(group);
  if (format.scales != GroupScales::k_quant) {
    std::byte* record = column + g * format.record_bytes();
    store_u16(record + 2 * c, row.scale[group]);
    if (format.scales == GroupScales::f16_min) store_u16(record + 128 + 2 * c, row.min[group]);
    return;
  }
  std::byte* record = column + g / 8 * format.record_bytes();
  store_u16(record + 2 * c, row.scale[group / 8]);
  store_u16(record + 128 + 2 * c, row.min[group / 8]);
  std::byte* sub = column + group_codes_begin(format, g) - 128;
  sub[c] = std::byte{row.sub_scale[group]};
  sub[64 + c] = std::byte{row.sub_min[group]};
}

}  // namespace

void pack_group_row(const GroupFormat& format, const GroupRow& row, int64_t k_padded, int64_t c,
                    std::byte* column) {
  for (int64_t g = 0; g < k_padded / format.group; ++g) {
    pack_scales(format, row, static_cast<size_t>(g), c, column);
    pack_codes(format, row.q.data() + g * format.group, c, column + group_codes_begin(format, g));
  }
}

GroupWeight read_group_weight(const GroupFormat& format, const std::byte* column, int64_t c,
                              int64_t k) {
  const int64_t g = k / format.group;
  const int64_t i = k % format.group;
  const std::byte* codes = column + group_codes_begin(format, g);
  const auto byte = std::to_integer<int32_t>(codes[group_code_offset(format.bits, i, c)]);
  GroupWeight out;
  out.q = (byte >> group_code_shift(format.bits, i)) & ((1 << format.bits) - 1);
  if (format.scales != GroupScales::k_quant) {
    const std::byte* record = column + g * format.record_bytes();
    out.scale = load_half(record + 2 * c);
    if (format.scales == GroupScales::f16_min) out.min = load_half(record + 128 + 2 * c);
    return out;
  }
  const std::byte* record = column + g / 8 * format.record_bytes();
  const std::byte* sub = codes - 128;
  out.scale = load_half(record + 2 * c) * static_cast<float>(std::to_integer<int>(sub[c]));
  out.min =
      -(load_half(record + 128 + 2 * c) * static_cast<float>(std::to_integer<int>(sub[64 + c])));
  return out;
}

}  // namespace qllm
