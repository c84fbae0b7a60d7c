// Products of quantized activations with the weights of a linear, as they lie on the device
// (docs/cuda.md has layouts and formulas):
//
//   y[m, n] = x_scale[m] * scale[n] * sum_k x[m, k] w[n, k] + bias[n] + residual[m, n]     int8
//   y[m, n] = sum_g x_scale[m, g] (scale[n, g] (sum_{k in g} q x - zero X) + min[n, g] X) + ...
//
// with exact int32 sums. Each function launches on a stream, allocates nothing and may be captured.
#pragma once

#include <cuda_runtime.h>

#include "quant/group.h"
#include "step_tables.h"

namespace qllm::cuda {

/// Rows [n0, n0 + n) of an int8 linear: w[r * ld + k], ld and n multiples of 64; the inputs and
/// rows that only pad are 0.
struct Int8Run {
  const int8_t* w = nullptr;
  const float* scale = nullptr;  // [n]
  int64_t n0 = 0;
  int64_t n = 0;
  int64_t ld = 0;
};

/// One run with the second terms of some of its rows (WeightFormat::terms), whole blocks of 64.
struct Int8Linear {
  Int8Run first;
  Int8Run second;  // n0 counted in the linear as well; n = 0: none
};

/// Rows [n0, n0 + n) in groups: block columns of 64 outputs as quant/group.h lays them.
struct GroupRun {
  const std::byte* columns = nullptr;
  GroupFormat format;
  int64_t n0 = 0;
  int64_t n = 0;
  int64_t k_padded = 0;
  int64_t column_bytes = 0;  // format.column_bytes(k_padded)
};

/// Where products go. Outputs past floats.width are not written.
struct LinearTarget {
  FloatRows floats;
  const float* bias = nullptr;      // [width]
  const float* residual = nullptr;  // [m, ld of floats]
};

/// Tokens that the kernels which read weights once take: more go to tiles of tensor cores, and many
/// to cuBLASLt.
inline constexpr int64_t kStreamTokens = 8;
inline constexpr int64_t kTileTokens = 64;

/// The kernel that m tokens take.
enum class LinearKernel : uint8_t {
  stream,  ///< dp4a, a warp for a few rows: bound by memory
  tiles,   ///< tensor cores on 16 rows (groups: 64) by up to 64 tokens
  gemm,    ///< cuBLASLt, then scale_sums; int8 only
};
LinearKernel choose_int8_kernel(int64_t m);
LinearKernel choose_group_kernel(int64_t m);

/// Rows that a warp of the stream kernel takes: 4 where that fills the device with some 16 warps a
/// multiprocessor and few tokens leave room for their sums in registers, else 2.
int stream_rows_per_warp(int64_t n, int64_t m, int multiprocessors);

/// 1 to kStreamTokens tokens.
void int8_stream(const Int8Linear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                 int multiprocessors, cudaStream_t stream);
/// Any number of tokens.
void int8_tiles(const Int8Linear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                cudaStream_t stream);
/// y = x_scale * scale * sums (+ bias + residual), or y += ... where `second`. sums [m, run.n].
void scale_sums(const int32_t* sums, const Int8Run& run, bool second, const QuantRows& x, int64_t m,
                const LinearTarget& y, cudaStream_t stream);

/// 1 to kStreamTokens tokens.
void group_stream(const GroupRun& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                  cudaStream_t stream);
/// Any number of tokens.
void group_tiles(const GroupRun& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                 cudaStream_t stream);

/// Rows of blocks of 64 x 64 (quant/packing.h) to rows of `ld` inputs: how a packed file becomes
/// what int8 kernels and cuBLASLt read. `count` rows, a multiple of 64.
void unpack_rows(const int8_t* packed, int64_t count, int64_t ld, int8_t* rows,
                 cudaStream_t stream);

}  // namespace qllm::cuda
