// Weights on a grid of groups, and their packed layout as index equations.
//
//   w[n, k] = scale[n, g] * (q[n, k] - zero) + min[n, g],   g = k / group
//
// q unsigned: 0..15 (4 bits, zero 8) or 0..255 (8 bits, zero 128); zero is 0 where there is a
// minimum. A dot product against activations x = x_scale[g] * xq (xq s8, one scale per token and
// group) needs one exact s32 sum per group and then floats:
//
//   y[m, n] = sum_g x_scale[m, g] * (scale[n, g] * (sum_{k in g} q xq - zero X) + min[n, g] X),
//   X = sum_{k in g} xq[m, k]
//
// Packed: a *block column* is 64 outputs over all of K, made of one record per group (for k_quant:
// per super-block of 256 inputs), one behind the other, so that it streams front to back:
//
//   f16, f16_min:  [scale f16 x 64] [min f16 x 64, f16_min only] [codes]
//   k_quant:       [d f16 x 64] [dmin f16 x 64] then 8 times [sub_scale u8 x 64] [sub_min u8 x 64]
//                  [codes];  scale = d * sub_scale, min = -(dmin * sub_min), both exact in f32
//
// Codes of a group, i = k % group, c = n % 64:
//   8 bits:  byte  i/4 * 256 + c*4 + i%4                  (the int8 layout of packing.h)
//   4 bits:  byte  i/8 * 256 + c*4 + i%4, the low nibble where i%8 < 4, else the high one: a line
//            and'ed with 0x0f is the line of inputs 0..3 of eight, shifted right that of 4..7
// N is padded to 64, K to max(64, group) (256 for k_quant); padding has q = zero and scale, min =
// 0.
#pragma once

#include <cstdint>
#include <vector>

#include "core/math.h"

namespace qllm {

/// How the scales of groups are stored.
enum class GroupScales : uint8_t {
  f16,      ///< one f16 scale (Q4_0, Q8_0, int4 symmetric)
  f16_min,  ///< f16 scale and f16 minimum (Q4_1, int4 with minimum)
  k_quant,  ///< Q4_K: 6-bit integers times two f16 of a super-block of 8 groups of 32
};

inline constexpr int64_t kSuperBlock = 256;  // inputs of a super-block of k_quant

struct GroupFormat {
  int bits = 4;    // 4 or 8
  int group = 32;  // inputs that share a scale: 32, 64 or 128 (k_quant: 32)
  GroupScales scales = GroupScales::f16_min;

  constexpr int32_t zero() const { return scales != GroupScales::f16 ? 0 : (bits == 4 ? 8 : 128); }
  constexpr int64_t code_bytes() const { return int64_t{64} * group * bits / 8; }  // of one group
  /// Inputs and bytes of one record.
  constexpr int64_t record_k() const {
    return scales == GroupScales::k_quant ? kSuperBlock : int64_t{group};
  }
  constexpr int64_t record_bytes() const {
    if (scales == GroupScales::k_quant) return 256 + 8 * (128 + code_bytes());
    return (scales == GroupScales::f16_min ? 256 : 128) + code_bytes();
  }
  constexpr int64_t padded_k(int64_t k) const {
    return round_up(k, record_k() < 64 ? int64_t{64} : record_k());
  }
  /// Bytes of a block column of padded K inputs.
  constexpr int64_t column_bytes(int64_t k_padded) const {
    return k_padded / record_k() * record_bytes();
  }
  friend bool operator==(const GroupFormat&, const GroupFormat&) = default;
};

/// One row of a weight on its grid, in the form in which it is stored.
struct GroupRow {
  std::vector<uint8_t> q;          // [k]
  std::vector<uint16_t> scale;     // f16 [k/group]; k_quant: d [k/256]
  std::vector<uint16_t> min;       // f16 [k/group], f16_min only; k_quant: dmin [k/256]
  std::vector<uint8_t> sub_scale;  // k_quant only: [k/32], 0..63
  std::vector<uint8_t> sub_min;    // k_quant only: [k/32], 0..63
};

}  // namespace qllm
