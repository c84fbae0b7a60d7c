// Weights put on a grid of groups (quant/group.h) and read back, and activations by groups: the
// float reference that every kernel is held to.
//
// Activations: per token and group, as quant/int8.h per row, with the sum of the codes beside:
//   scale = max|x| / 127 (1 where max|x| is 0), q = clamp(round_half_even(x * 127 / max|x|))
//
// Weights: scale and minimum are rounded to f16 first, then the codes are chosen against what was
// rounded:
//   q = clamp(round_half_even((w - min) / scale) + zero, 0, 2^bits - 1)
// NaN counts as 0; magnitudes are cut to the largest f16, 65504. Symmetric 8 bits use the codes
// 1..255 (-127..127). For 4 bits the scale (and minimum) of least squared error is taken out of a
// few: group_quant.cpp says which.
#pragma once

#include <cstdint>

#include "quant/group.h"

namespace qllm {

/// Quantizes one row of `k` floats; `out` is padded to format.padded_k(k) (group.h says how).
/// Preconditions: the format is not k_quant, its group 32, 64 or 128.
void quantize_group_row(const GroupFormat& format, const float* x, int64_t k, GroupRow* out);

/// A row of `k_padded` inputs of zeros.
void zero_group_row(const GroupFormat& format, int64_t k_padded, GroupRow* out);

/// Pads a row to `k_padded` inputs; what is there stays.
void pad_group_row(const GroupFormat& format, int64_t k_padded, GroupRow* row);

/// Scale and minimum of one group of a row.
struct GroupScale {
  float scale = 0.0F;
  float min = 0.0F;
};
GroupScale group_scale(const GroupFormat& format, const GroupRow& row, int64_t group);

/// scale * (q - zero) + min of each code of a row, rounded after each step, out [row.q.size()].
void dequantize_group_row(const GroupFormat& format, const GroupRow& row, float* out);

/// Quantizes one token's `k` activations by groups: writes k_padded codes in [-127, 127] (those
/// past k are 0) and, per group, the scale and the sum of the codes. NaN becomes 0, infinities
/// saturate the scale to the largest finite value of the group. Precondition: `group` divides
/// k_padded >= k.
void quantize_groups_s8(const float* x, int64_t k, int64_t k_padded, int64_t group, int8_t* q,
                        float* scale, int32_t* sum);

}  // namespace qllm
