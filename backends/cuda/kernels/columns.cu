#include "kernels/columns.h"
#include "kernels/device.h"

namespace qllm::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void pack(FloatRows columns, float* packed, int64_t ld) {
  wait_for_previous();
  const auto r = static_cast<int64_t>(blockIdx.x);
  for (int64_t c = threadIdx.x; c < columns.width; c += blockDim.x) {
    packed[r * ld + c] = columns.data[r * columns.ld + c];
  }
}

/// A block puts one rank's columns of one row back.
__global__ void unpack(const float* packed, Deal deal, FloatRows out) {
  wait_for_previous();
  const auto r = static_cast<int64_t>(blockIdx.x), rows = static_cast<int64_t>(gridDim.x);
  const auto rank = static_cast<int64_t>(blockIdx.y);
  const int64_t begin = deal.begin(rank);
  const int64_t end = deal.end(rank) < out.width ? deal.end(rank) : out.width;
  const float* const from = packed + (rank * rows + r) * deal.most();
  float* const to = out.data + r * out.ld + begin;
  for (int64_t c = threadIdx.x; c < end - begin; c += blockDim.x) to[c] = from[c];
}

}  // namespace

void pack_columns(const FloatRows& columns, int64_t rows, float* packed, int64_t ld,
                  cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{dim3(static_cast<unsigned>(rows)), kThreads, 0};
  launch("pack_columns", pack, shape, stream, true, columns, packed, ld);
}

void unpack_columns(const float* packed, const Deal& deal, int64_t rows, const FloatRows& out,
                    cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{dim3(static_cast<unsigned>(rows), static_cast<unsigned>(deal.ranks)),
                          kThreads, 0};
  launch("unpack_columns", unpack, shape, stream, true, packed, deal, out);
}

}  // namespace qllm::cuda
