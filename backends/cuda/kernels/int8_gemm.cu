// What stands around cuBLASLt's int8 products: scales behind them, and weights in its order before.
#include "kernels/device.h"
#include "kernels/linear_store.h"
#include "quant/packing.h"

namespace qllm::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void scale_kernel(const int32_t* sums, Int8Run run, bool second, QuantRows x,
                             LinearTarget y) {
  wait_for_previous();
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const auto m = static_cast<int64_t>(blockIdx.y);
  if (n >= run.n) return;
  const float value = static_cast<float>(sums[m * run.n + n]) * (x.scale[m] * run.scale[n]);
  if (!second) return store_output(y, m, run.n0 + n, value);
  if (run.n0 + n < y.floats.width) y.floats.data[m * y.floats.ld + run.n0 + n] += value;
}

/// A thread moves 16 inputs of a row: four words that lie 256 bytes apart in a block.
__global__ void unpack_kernel(const int8_t* packed, int64_t count, int64_t ld, int8_t* rows) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t k = i / count * 16, n = i % count;  // neighbours take neighbouring rows' words
  if (k >= ld) return;
  uint4 out;
  const int8_t* from = packed + packed_offset(n, k, ld);
  out.x = *reinterpret_cast<const unsigned*>(from);
  out.y = *reinterpret_cast<const unsigned*>(from + 256);
  out.z = *reinterpret_cast<const unsigned*>(from + 512);
  out.w = *reinterpret_cast<const unsigned*>(from + 768);
  *reinterpret_cast<uint4*>(rows + n * ld + k) = out;
}

}  // namespace

void scale_sums(const int32_t* sums, const Int8Run& run, bool second, const QuantRows& x, int64_t m,
                const LinearTarget& y, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((run.n + kThreads - 1) / kThreads),
                  static_cast<unsigned>(m));
  launch("scale_sums", scale_kernel, {grid, kThreads, 0}, stream, true, sums, run, second, x, y);
}

void unpack_rows(const int8_t* packed, int64_t count, int64_t ld, int8_t* rows,
                 cudaStream_t stream) {
  const int64_t threads = count * (ld / 16);
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  launch("unpack_rows", unpack_kernel, {dim3(blocks), kThreads, 0}, stream, false, packed, count,
         ld, rows);
}

LinearKernel choose_int8_kernel(int64_t m) {
  if (m <= kStreamTokens) return LinearKernel::stream;
  return m <= kTileTokens ? LinearKernel::tiles : LinearKernel::gemm;
}

LinearKernel choose_group_kernel(int64_t m) {
  return m <= kStreamTokens ? LinearKernel::stream : LinearKernel::tiles;
}

int stream_rows_per_warp(int64_t n, int64_t m, int multiprocessors) {
  constexpr int64_t kWarpsWanted = 16;
  return m <= 4 && n / 4 >= kWarpsWanted * multiprocessors ? 4 : 2;
}

}  // namespace qllm::cuda
