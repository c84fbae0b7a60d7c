// The contract of every kernel on weights in groups (quant/group.h), and its registry.
//
//   y[m * ldy + n] = sum_g xs[m, g] * (scale[n, g] * (sum_{k in g} q[n, k] x[m, k] - zero X[m, g])
//                                      + min[n, g] * X[m, g]),   X[m, g] = sum_{k in g} x[m, k]
//
// x s8 in [-127, 127], the group sums exact s32, the rest float32 in any order, so
//   abs(error) <= (groups + 4) u sum_g xs (abs(scale) abs(dot) + abs(min) abs(X)),  u = 2^-24.
// N is a multiple of 64, K of max(64, record_k); x, w and y are 64-byte aligned, ldx a multiple of
// 64, ldy of 16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/dot.h"
#include "quant/group.h"

namespace qllm::cpu {

struct GroupDotArgs {
  GroupFormat format;
  const int8_t* x = nullptr;       // [m, ldx]
  const float* x_scale = nullptr;  // [m, ldg]
  const int32_t* x_sum = nullptr;  // [m, ldg]
  const std::byte* w = nullptr;    // block columns [n/64][format.column_bytes(k)]
  float* y = nullptr;              // [m, ldy]
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;  // padded
  int64_t ldx = 0;
  int64_t ldg = 0;
  int64_t ldy = 0;
};

struct GroupDotKernel {
  const char* name;  // "group_dot_s8_n64_stream_avx2"
  Isa isa;
  int64_t m_min;  // the range of M that it is meant for; correct for every M >= 1
  int64_t m_max;
  void (*run)(const GroupDotArgs& args) noexcept;  // every GroupFormat
};

std::span<const GroupDotKernel> group_dot_kernels();

/// The kernel of a tier for M tokens; amx uses avx512vnni's. Never null for an available tier.
const GroupDotKernel& select_group_dot_kernel(Isa isa, int64_t m);

}  // namespace qllm::cpu
