#include "kernels/device.h"
#include "kernels/read_memory.h"

namespace qllm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLoads = 4;  // of 16 bytes a thread in flight

__global__ void read_kernel(const uint4* data, int64_t count, unsigned* sums) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  unsigned sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += kLoads * step) {
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      if (i + l * step >= count) continue;
      const uint4 v = load_once(data + i + l * step);
      sum += v.x ^ v.y ^ v.z ^ v.w;
    }
  }
  const int all = warp_sum(static_cast<int>(sum));
  if (threadIdx.x % kWarp == 0) atomicAdd(sums + blockIdx.x, static_cast<unsigned>(all));
}

}  // namespace

int read_memory_blocks(int multiprocessors) { return 8 * multiprocessors; }

void read_memory(const std::byte* data, int64_t bytes, int multiprocessors, unsigned* sums,
                 cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(read_memory_blocks(multiprocessors));
  launch("read_memory", read_kernel, {dim3(blocks), kThreads, 0}, stream, false,
         reinterpret_cast<const uint4*>(data), bytes / 16, sums);
}

}  // namespace qllm::cuda
