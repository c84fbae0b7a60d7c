// int8 products of some tokens on tensor cores: a block takes 16 rows by up to 64 tokens, its warps
// share the inputs, and weights still go by once for up to 64 tokens.
//
// A product mma_s8 wants rows as A [16 x 32] and tokens as B [32 x 8]. Sums over k may be taken in
// any order, so inputs are dealt out as memory likes it: of 64 inputs lane t = lane % 4 takes 16
// neighbours in one load, for rows g and g + 8 (g = lane / 4) and for token g, and its four words
// serve two products: (word 0, word 1), then (word 2, word 3), as k halves.
#include "kernels/device.h"
#include "kernels/linear_store.h"

namespace qllm::cuda {
namespace {

constexpr int kRows = 16;
constexpr int kTokenTile = 8;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kChunk = 64;  // inputs of a step

/// One warp's sums of 16 rows by 8 kTiles tokens over its share of the inputs.
template <int kTiles>
__device__ void warp_sums(const int8_t* rows, int64_t ld, const QuantRows& x, int64_t token0,
                          int64_t m, int (&sums)[kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] = 0;
  }
#pragma unroll 2
  for (int64_t k = static_cast<int64_t>(warp) * kChunk; k < ld; k += kWarps * kChunk) {
    const int64_t at = k + t * 16;
    const uint4 low = load_once(rows + g * ld + at);
    const uint4 high = load_once(rows + (g + 8) * ld + at);
    const unsigned a0[4] = {low.x, high.x, low.y, high.y};
    const unsigned a1[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int64_t token = smaller(token0 + i * kTokenTile + g, m - 1);
      const uint4 b = load_again(x.q + token * x.ld + at);
      const unsigned b0[2] = {b.x, b.y};
      const unsigned b1[2] = {b.z, b.w};
      mma_s8(sums[i], a0, b0);
      mma_s8(sums[i], a1, b1);
    }
  }
}

/// Adds a warp's sums to those of the block, [tokens][16 rows].
template <int kTiles>
__device__ void add_to_block(const int (&sums)[kTiles][4], int* block) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = g + j / 2 * 8, token = i * kTokenTile + 2 * t + j % 2;
      atomicAdd(block + token * kRows + row, sums[i][j]);
    }
  }
}

template <int kTiles>
__global__ __launch_bounds__(kThreads) void tiles_kernel(Int8Linear w, QuantRows x, int64_t m,
                                                         LinearTarget y) {
  wait_for_previous();
  constexpr int kSums = kTiles * kTokenTile * kRows;
  __shared__ int block[2][kSums];
  for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kThreads) {
    block[0][i] = 0;
    block[1][i] = 0;
  }
  __syncthreads();
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t token0 = static_cast<int64_t>(blockIdx.y) * kTiles * kTokenTile;
  int sums[kTiles][4];
  warp_sums(w.first.w + row0 * w.first.ld, w.first.ld, x, token0, m, sums);
  add_to_block(sums, block[0]);
  const int64_t in_second = w.first.n0 + row0 - w.second.n0;
  const bool has_second = in_second >= 0 && in_second < w.second.n;
  if (has_second) {
    warp_sums(w.second.w + in_second * w.second.ld, w.second.ld, x, token0, m, sums);
    add_to_block(sums, block[1]);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kThreads) {
    const int64_t token = token0 + i / kRows, row = i % kRows;
    if (token >= m) continue;
    const float scale = x.scale[token];
    float value = static_cast<float>(block[0][i]) * (scale * w.first.scale[row0 + row]);
    if (has_second) {
      value += static_cast<float>(block[1][i]) * (scale * w.second.scale[in_second + row]);
    }
    store_output(y, token, w.first.n0 + row0 + row, value);
  }
}

template <int kTiles>
void launch_tiles(const Int8Linear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                  cudaStream_t stream) {
  const int64_t tokens = kTiles * kTokenTile;
  const dim3 grid(static_cast<unsigned>(w.first.n / kRows),
                  static_cast<unsigned>((m + tokens - 1) / tokens));
  launch("int8_tiles", tiles_kernel<kTiles>, {grid, kThreads, 0}, stream, true, w, x, m, y);
}

}  // namespace

void int8_tiles(const Int8Linear& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                cudaStream_t stream) {
  if (m <= 8) return launch_tiles<1>(w, x, m, y, stream);
  if (m <= 16) return launch_tiles<2>(w, x, m, y, stream);
  if (m <= 32) return launch_tiles<4>(w, x, m, y, stream);
  launch_tiles<8>(w, x, m, y, stream);
}

}  // namespace qllm::cuda
