// Products of few tokens with weights in groups: the weights go by once.
//
// A block takes one block column of 64 outputs. Teams of 16 lanes take its groups by turns; lane l
// of a team has outputs 4 l .. 4 l + 3, so that a team reads a line of 256 bytes at a time, each
// lane 16 of them, and activations are the same words for all its lanes. A lane turns its exact sum
// over a group into floats; at the end the teams' floats are added in order.
#include "kernels/group_layout.h"
#include "kernels/linear_store.h"

namespace qllm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTeam = 16;
constexpr int kTeams = kThreads / kTeam;
constexpr int kOutputs = 64;
constexpr int kLine = 256;  // bytes: 64 outputs by 4 inputs of 8 bits or 8 of 4

__device__ unsigned word_of(const uint4& v, int o) {
  return o == 0 ? v.x : (o == 1 ? v.y : (o == 2 ? v.z : v.w));
}

/// sums[o][t] += codes of the lane's four outputs times activations, over one group.
template <int kBits, int kTokens>
__device__ void group_sums(const std::byte* codes, const QuantRows& x, int64_t k0, int m,
                           int (&sums)[4][kTokens]) {
  constexpr int kInputs = kBits == 8 ? 4 : 8;  // of a line
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
  const int lines = static_cast<int>(x.group) / kInputs;
#pragma unroll 4
  for (int line = 0; line < lines; ++line) {
    const uint4 w = load_once(codes + line * kLine + lane * 16);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* token = x.q + (t < m ? t : m - 1) * x.ld + k0 + line * kInputs;
      const int x0 = *reinterpret_cast<const int*>(token);
      const int x1 = kBits == 4 ? *reinterpret_cast<const int*>(token + 4) : 0;
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        const unsigned word = word_of(w, o);
        if constexpr (kBits == 8) {
          sums[o][t] = __dp4a(static_cast<int>(signed_codes(word)), x0, sums[o][t]);
        } else {
          sums[o][t] = __dp4a(static_cast<int>(low_codes(word)), x0, sums[o][t]);
          sums[o][t] = __dp4a(static_cast<int>(high_codes(word)), x1, sums[o][t]);
        }
      }
    }
  }
}

template <GroupScales kScales, int kBits, int kTokens>
__global__ __launch_bounds__(kThreads) void stream_kernel(GroupRun w, QuantRows x, int m,
                                                          LinearTarget y) {
  wait_for_previous();
  using Reader = GroupReader<kScales, kBits>;
  __shared__ float parts[kTeams][kTokens][kOutputs];
  const int team = static_cast<int>(threadIdx.x) / kTeam;
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
  const Reader reader{w.format, w.columns + blockIdx.x * w.column_bytes};
  float out[4][kTokens] = {};
  const int64_t groups = w.k_padded / x.group;
  for (int64_t g = team; g < groups; g += kTeams) {
    int sums[4][kTokens] = {};
    group_sums<kBits, kTokens>(reader.codes(g), x, g * x.group, m, sums);
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      const GroupGrid grid = reader.grid(g, lane * 4 + o);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const int64_t at = (t < m ? t : m - 1) * (x.ld / x.group) + g;
        out[o][t] += group_part<Reader>(grid, sums[o][t], x.scale[at], x.sum[at]);
      }
    }
  }
#pragma unroll
  for (int o = 0; o < 4; ++o) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) parts[team][t][lane * 4 + o] = out[o][t];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * kOutputs; i += kThreads) {
    const int t = i / kOutputs, c = i % kOutputs;
    if (t >= m) continue;
    float value = 0;
    for (int p = 0; p < kTeams; ++p) value += parts[p][t][c];
    store_output(y, t, w.n0 + static_cast<int64_t>(blockIdx.x) * kOutputs + c, value);
  }
}

template <int kTokens>
void launch_stream(const GroupRun& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                   cudaStream_t stream) {
  with_format(w.format, [&]<GroupScales kScales, int kBits>() {
    launch("group_stream", stream_kernel<kScales, kBits, kTokens>,
           {dim3(static_cast<unsigned>(w.n / kOutputs)), kThreads, 0}, stream, true, w, x,
           static_cast<int>(m), y);
  });
}

}  // namespace

void group_stream(const GroupRun& w, const QuantRows& x, int64_t m, const LinearTarget& y,
                  cudaStream_t stream) {
  if (m == 1) return launch_stream<1>(w, x, m, y, stream);
  if (m == 2) return launch_stream<2>(w, x, m, y, stream);
  if (m <= 4) return launch_stream<4>(w, x, m, y, stream);
  launch_stream<8>(w, x, m, y, stream);
}

}  // namespace qllm::cuda
