// The packed layout of quant/group.h as index equations, and rows put into it and read back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/group.h"

namespace qllm {

/// Byte of a group's codes that holds input i of output c (0..63); 4 bits: half of it.
constexpr int64_t group_code_offset(int bits, int64_t i, int64_t c) {
  return (bits == 8 ? i / 4 : i / 8) * 256 + c * 4 + i % 4;
}

/// How far that byte is shifted right to find the code.
constexpr int group_code_shift(int bits, int64_t i) { return bits == 4 && i % 8 >= 4 ? 4 : 0; }

/// Where a group's codes begin in its block column.
constexpr int64_t group_codes_begin(const GroupFormat& f, int64_t group) {
  if (f.scales == GroupScales::k_quant) {
    return group / 8 * f.record_bytes() + 256 + group % 8 * (128 + f.code_bytes()) + 128;
  }
  return group * f.record_bytes() + (f.scales == GroupScales::f16_min ? 256 : 128);
}

/// Writes output c (0..63) of a block column of `k_padded` inputs. Preconditions: row.q holds
/// k_padded codes, the scales as many as that asks for; `column` format.column_bytes(k_padded)
/// bytes, those of other outputs are left alone.
void pack_group_row(const GroupFormat& format, const GroupRow& row, int64_t k_padded, int64_t c,
                    std::byte* column);

/// One weight as it stands on its grid: w = scale * (q - zero) + min.
struct GroupWeight {
  int32_t q = 0;
  float scale = 0.0F;
  float min = 0.0F;
};

/// Weight (c, k) of a block column.
GroupWeight read_group_weight(const GroupFormat& format, const std::byte* column, int64_t c,
                              int64_t k);

}  // namespace qllm
