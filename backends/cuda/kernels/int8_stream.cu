// int8 products of few tokens: the weights go by once, each byte read by one lane, and memory is
// what they wait for.
//
// A warp takes kRows rows; lane l takes inputs 16 l .. 16 l + 15 of every 512. So a warp reads 512
// neighbouring bytes of each row at a time, kRows loads of 16 bytes a lane in flight, and
// activations come from the cache. Sums are int32 and exact, whatever the order.
#include "kernels/device.h"
#include "kernels/linear_store.h"

namespace qllm::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kLoad = 16;  // bytes

__device__ int dot16(uint4 a, uint4 b, int sum) {
  sum = __dp4a(static_cast<int>(a.x), static_cast<int>(b.x), sum);
  sum = __dp4a(static_cast<int>(a.y), static_cast<int>(b.y), sum);
  sum = __dp4a(static_cast<int>(a.z), static_cast<int>(b.z), sum);
  return __dp4a(static_cast<int>(a.w), static_cast<int>(b.w), sum);
}

/// sums[r][t] = sum_k w[row + r, k] x[t, k] over this lane's inputs. Tokens past m repeat the last.
template <int kRows, int kTokens>
__device__ void lane_sums(const int8_t* w, int64_t ld, const QuantRows& x, int m, int lane,
                          int (&sums)[kRows][kTokens]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) sums[r][t] = 0;
  }
#pragma unroll 2
  for (int64_t k = static_cast<int64_t>(lane) * kLoad; k < ld; k += kWarp * kLoad) {
    uint4 rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) rows[r] = load_once(w + r * ld + k);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const uint4 token = load_again(x.q + (t < m ? t : m - 1) * x.ld + k);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r][t] = dot16(rows[r], token, sums[r][t]);
    }
  }
}

/// The warp's sum of (r, t) comes to lane r * kTokens + t.
template <int kRows, int kTokens>
__device__ int own_sum(const int (&sums)[kRows][kTokens], int lane) {
  int own = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const int sum = warp_sum(sums[r][t]);
      if (lane == r * kTokens + t) own = sum;
    }
  }
  return own;
}

template <int kRows, int kTokens>
__global__ __launch_bounds__(kThreads) void stream_kernel(Int8Linear w, QuantRows x, int m,
                                                          LinearTarget y) {
  wait_for_previous();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) +
                       static_cast<int64_t>(threadIdx.x) / kWarp;
  const int64_t row = warp * kRows;
  if (row >= w.first.n) return;  // a whole warp
  int sums[kRows][kTokens];
  lane_sums(w.first.w + row * w.first.ld, w.first.ld, x, m, lane, sums);
  const int first = own_sum(sums, lane);
  const int64_t in_second = w.first.n0 + row - w.second.n0;
  const bool has_second = in_second >= 0 && in_second < w.second.n;
  int second = 0;
  if (has_second) {
    lane_sums(w.second.w + in_second * w.second.ld, w.second.ld, x, m, lane, sums);
    second = own_sum(sums, lane);
  }
  const int r = lane / kTokens, t = lane % kTokens;
  if (r >= kRows || t >= m) return;
  const float scale = x.scale[t];
  float value = static_cast<float>(first) * (scale * w.first.scale[row + r]);
  if (has_second) value += static_cast<float>(second) * (scale * w.second.scale[in_second + r]);
  store_output(y, t, w.first.n0 + row + r, value);
}

template <int kRows, int kTokens>
void launch_stream(const Int8Linear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                   cudaStream_t stream) {
  const int64_t rows_of_block = int64_t{kRows} * kThreads / kWarp;
  const int64_t blocks = (w.first.n + rows_of_block - 1) / rows_of_block;
  launch("int8_stream", stream_kernel<kRows, kTokens>,
         {dim3(static_cast<unsigned>(blocks)), kThreads, 0}, stream, true, w, x,
         static_cast<int>(m), y);
}

}  // namespace

void int8_stream(const Int8Linear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                 int multiprocessors, cudaStream_t stream) {
  const bool four = stream_rows_per_warp(w.first.n, m, multiprocessors) == 4;
  if (m > 4) return launch_stream<2, 8>(w, x, m, y, stream);
  if (m > 2) return (four ? launch_stream<4, 4> : launch_stream<2, 4>)(w, x, m, y, stream);
  if (m > 1) return (four ? launch_stream<4, 2> : launch_stream<2, 2>)(w, x, m, y, stream);
  (four ? launch_stream<4, 1> : launch_stream<2, 1>)(w, x, m, y, stream);
}

}  // namespace qllm::cuda
