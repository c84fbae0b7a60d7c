// Products of many tokens with weights in groups, on tensor cores: a block takes a block column of
// 64 outputs by up to 32 tokens, its warps take the groups by turns.
//
// mma_s8 multiplies 16 outputs by 32 inputs; its sum over a group is exact and then becomes a
// float. With g = lane / 4 and t = lane % 4, of each 32 inputs lane t takes inputs 8 t .. 8 t + 7
// (the order of a sum is free): in 4 bits one word of a line, whose low codes are the first half of
// k and whose high codes are the second; in 8 bits a word of each of two lines. A load of 16 bytes
// has the words of outputs 4 g .. 4 g + 3, which are rows g and g + 8 of two tiles:
//   output 32 s + 4 g + 2 h + j  is row  g + 8 j  of tile  2 s + h,   s, h, j in {0, 1}
#include "kernels/group_layout.h"
#include "kernels/linear_store.h"

namespace qllm::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kOutputs = 64;
constexpr int kLine = 256;
constexpr int kTokenTile = 8;
constexpr int kChunk = 32;  // inputs of a product

/// The words of two tiles: rows g and g + 8 of tile h are words 2 h and 2 h + 1.
struct Words {
  unsigned first[4];   // the first half of k
  unsigned second[4];  // the second
};

template <int kBits>
__device__ Words read_words(const std::byte* codes, int chunk, int t, int at) {
  Words words;
  if constexpr (kBits == 4) {
    const uint4 v = load_once(codes + (chunk * 4 + t) * kLine + at);
    const unsigned w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words.first[i] = low_codes(w[i]);
      words.second[i] = high_codes(w[i]);
    }
  } else {
    const uint4 a = load_once(codes + (chunk * 8 + 2 * t) * kLine + at);
    const uint4 b = load_once(codes + (chunk * 8 + 2 * t + 1) * kLine + at);
    const unsigned v[4] = {a.x, a.y, a.z, a.w}, w[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words.first[i] = signed_codes(v[i]);
      words.second[i] = signed_codes(w[i]);
    }
  }
  return words;
}

/// One set of 32 outputs (two tiles) by kTiles times 8 tokens, over one group.
template <class Reader, int kBits, int kTiles>
__device__ void add_group(const Reader& reader, int64_t group, int set, const QuantRows& x,
                          int64_t token0, int64_t m, float (&out)[2][kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, t = lane % 4;
  int sums[2][kTiles][4] = {};
  const int chunks = static_cast<int>(x.group) / kChunk;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const Words w = read_words<kBits>(reader.codes(group), chunk, t, set * 128 + g * 16);
    const int64_t k = group * x.group + chunk * kChunk + t * 8;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int64_t token = smaller(token0 + i * kTokenTile + g, m - 1);
      const uint2 v = *reinterpret_cast<const uint2*>(x.q + token * x.ld + k);
      const unsigned b[2] = {v.x, v.y};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const unsigned a[4] = {w.first[2 * h], w.first[2 * h + 1], w.second[2 * h],
                               w.second[2 * h + 1]};
        mma_s8(sums[h][i], a, b);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const GroupGrid grid = reader.grid(group, set * 32 + g * 4 + 2 * h + j);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int64_t token = smaller(token0 + i * kTokenTile + 2 * t + c, m - 1);
          const int64_t at = token * (x.ld / x.group) + group;
          out[h][i][2 * j + c] +=
              group_part<Reader>(grid, sums[h][i][2 * j + c], x.scale[at], x.sum[at]);
        }
      }
    }
  }
}

/// blockIdx.z is the set of 32 outputs.
template <GroupScales kScales, int kBits, int kTiles>
__global__ __launch_bounds__(kThreads) void tiles_kernel(GroupRun w, QuantRows x, int64_t m,
                                                         LinearTarget y) {
  wait_for_previous();
  using Reader = GroupReader<kScales, kBits>;
  constexpr int kTokens = kTiles * kTokenTile;
  constexpr int kSet = kOutputs / 2;
  __shared__ float parts[kWarps][kTokens][kSet];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = lane / 4, t = lane % 4;
  const int set = static_cast<int>(blockIdx.z);
  const int64_t token0 = static_cast<int64_t>(blockIdx.y) * kTokens;
  const Reader reader{w.format, w.columns + blockIdx.x * w.column_bytes};
  float out[2][kTiles][4] = {};
  for (int64_t group = warp; group < w.k_padded / x.group; group += kWarps) {
    add_group<Reader, kBits, kTiles>(reader, group, set, x, token0, m, out);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int d = 0; d < 4; ++d) {
        parts[warp][i * kTokenTile + 2 * t + d % 2][g * 4 + 2 * h + d / 2] = out[h][i][d];
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * kSet; i += kThreads) {
    const int64_t token = token0 + i / kSet;
    if (token >= m) continue;
    float value = 0;
    for (int p = 0; p < kWarps; ++p) value += parts[p][i / kSet][i % kSet];
    const int64_t n = static_cast<int64_t>(blockIdx.x) * kOutputs + set * kSet + i % kSet;
    store_output(y, token, w.n0 + n, value);
  }
}

template <int kTiles>
void launch_tiles(const GroupRun& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                  cudaStream_t stream) {
  const int64_t tokens = kTiles * kTokenTile;
  const dim3 grid(static_cast<unsigned>(w.n / kOutputs),
                  static_cast<unsigned>((m + tokens - 1) / tokens), 2);
  with_format(w.format, [&]<GroupScales kScales, int kBits>() {
    launch("group_tiles", tiles_kernel<kScales, kBits, kTiles>, {grid, kThreads, 0}, stream, true,
           w, x, m, y);
  });
}

}  // namespace

void group_tiles(const GroupRun& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                 cudaStream_t stream) {
  if (m <= 16) return launch_tiles<2>(w, x, m, y, stream);
  launch_tiles<4>(w, x, m, y, stream);
}

}  // namespace qllm::cuda
