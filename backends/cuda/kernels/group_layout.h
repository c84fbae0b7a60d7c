// Block columns of weights in groups (quant/group.h) as a lane reads them.
#pragma once

#include "kernels/device.h"
#include "kernels/linear.h"
#include "quant/group_packing.h"

namespace qllm::cuda {

/// A scale and a minimum.
struct GroupGrid {
  float scale, min;
};

__device__ inline float half_bits(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}
__device__ inline unsigned read16(const std::byte* p) {
  return *reinterpret_cast<const unsigned short*>(p);
}
__device__ inline unsigned read8(const std::byte* p) {
  return *reinterpret_cast<const unsigned char*>(p);
}

/// What is the same for all groups of a kernel, known when it is compiled.
template <GroupScales kScales, int kBits>
struct GroupReader {
  GroupFormat format;
  const std::byte* column;

  /// Codes of a group.
  __device__ const std::byte* codes(int64_t group) const {
    return column + group_codes_begin(format, group);
  }
  __device__ GroupGrid grid(int64_t group, int c) const {
    if constexpr (kScales == GroupScales::k_quant) {
      const std::byte* record = column + group / 8 * format.record_bytes();
      const std::byte* sub = record + 256 + group % 8 * (128 + format.code_bytes());
      return {half_bits(read16(record + 2 * c)) * static_cast<float>(read8(sub + c)),
              -(half_bits(read16(record + 128 + 2 * c)) * static_cast<float>(read8(sub + 64 + c)))};
    } else {
      const std::byte* record = column + group * format.record_bytes();
      const float min =
          kScales == GroupScales::f16_min ? half_bits(read16(record + 128 + 2 * c)) : 0.0F;
      return {half_bits(read16(record + 2 * c)), min};
    }
  }
  /// What sum_k q x - zero X lacks of the products that the kernels make: they multiply 4-bit codes
  /// as they are and 8-bit codes less 128.
  __device__ static constexpr int offset() {
    const int zero = kScales != GroupScales::f16 ? 0 : (kBits == 4 ? 8 : 128);
    return (kBits == 8 ? 128 : 0) - zero;
  }
};

/// x_scale (scale (sum + offset X) + min X): one group's part of an output.
template <class Reader>
__device__ float group_part(GroupGrid grid, int sum, float x_scale, int x_sum) {
  const float dot = static_cast<float>(sum + Reader::offset() * x_sum);
  return x_scale * (grid.scale * dot + grid.min * static_cast<float>(x_sum));
}

/// Four codes as int8: inputs 0..3 of eight, inputs 4..7 of eight; 8 bits less 128.
__device__ inline unsigned low_codes(unsigned word) { return word & 0x0f0f0f0fU; }
__device__ inline unsigned high_codes(unsigned word) { return word >> 4 & 0x0f0f0f0fU; }
__device__ inline unsigned signed_codes(unsigned word) { return word ^ 0x80808080U; }

/// Calls f<scales, bits>() for the format's.
template <class F>
void with_format(const GroupFormat& format, F f) {
  if (format.scales == GroupScales::k_quant)
    return f.template operator()<GroupScales::k_quant, 4>();
  if (format.scales == GroupScales::f16_min) {
    if (format.bits == 4) return f.template operator()<GroupScales::f16_min, 4>();
    return f.template operator()<GroupScales::f16_min, 8>();
  }
  if (format.bits == 4) return f.template operator()<GroupScales::f16, 4>();
  f.template operator()<GroupScales::f16, 8>();
}

}  // namespace qllm::cuda
