// What kernels use of the device beyond plain CUDA C++: the operations of a warp, tensor-core
// products, launches. Tests compile the kernels for the host with a header of this name of their
// own (tests/support/cuda_host), so a kernel calls these and never writes PTX itself.
//
// All lanes of a warp come to each warp operation together; none may have ended before.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda_error.h"

namespace qllm::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

/// The block's dynamic shared memory, as many bytes as its launch said, aligned to 16.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char qllm_dynamic_shared[];
  return reinterpret_cast<T*>(qllm_dynamic_shared);
}

/// v of lane (own ^ mask), of lane `from`.
template <class T>
__device__ T shuffle_xor(T v, int mask) {
  return __shfl_xor_sync(kAllLanes, v, mask);
}
template <class T>
__device__ T shuffle(T v, int from) {
  return __shfl_sync(kAllLanes, v, from);
}
__device__ inline void sync_warp() { __syncwarp(kAllLanes); }

/// The sum or the maximum over all lanes, in every lane.
__device__ inline int warp_sum(int v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_add_sync(kAllLanes, v);
#else
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
#endif
}
__device__ inline float warp_sum(float v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}
__device__ inline float warp_max(float v) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) v = fmaxf(v, shuffle_xor(v, mask));
  return v;
}

/// 16 bytes that are read once, which need not stay in a cache; and such as are read again.
__device__ inline uint4 load_once(const void* p) { return __ldcs(static_cast<const uint4*>(p)); }
__device__ inline uint4 load_again(const void* p) { return *static_cast<const uint4*>(p); }

/// Kernels of a stream may be resident before the one ahead of them has ended (programmatic
/// dependent launch, CUDA Programming Guide); this waits until it has, with all it wrote. Every
/// kernel begins with it, before it reads or writes anything that another kernel touches; weights,
/// which none writes, may be read before.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// d += a b on int8: a [16 x 32], b [32 x 8], d [16 x 8], shared out over a warp as PTX's mma
/// .m16n8k32 says, with g = lane / 4, t = lane % 4 and four values k..k+3 in a register:
///   a[0]: (g, 4t)  a[1]: (g + 8, 4t)  a[2]: (g, 16 + 4t)  a[3]: (g + 8, 16 + 4t)
///   b[0]: (4t, g)  b[1]: (16 + 4t, g)
///   d[0], d[1]: (g, 2t), (g, 2t + 1)  d[2], d[3]: (g + 8, 2t), (g + 8, 2t + 1)
__device__ inline void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(__CUDA_ARCH__)
  // Turing multiplies 8 x 16 by 16 x 8: the same registers in four products.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1},{%2},{%3},{%0,%1};"
                   : "+r"(d[2 * half]), "+r"(d[2 * half + 1])
                   : "r"(a[2 * k + half]), "r"(b[k]));
    }
  }
#endif
}

/// d += a b in f16 with float32 sums: a [16 x 16], b [16 x 8], d [16 x 8], as PTX's mma .m16n8k16
/// says, with two values k, k+1 in a register:
///   a[0]: (g, 2t)  a[1]: (g + 8, 2t)  a[2]: (g, 8 + 2t)  a[3]: (g + 8, 8 + 2t)
///   b[0]: (2t, g)  b[1]: (8 + 2t, g)
///   d as in mma_s8
__device__ inline void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(__CUDA_ARCH__)
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},"
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
  }
#endif
}

/// A grid of blocks; `threads` a block.
struct LaunchShape {
  dim3 grid;
  int threads = 0;
  size_t shared_bytes = 0;
};

/// Launches kernel(args...) on a stream. `overlap`: the kernel calls wait_for_previous first, and
/// the device can do it (compute capability 9.0 and above). Throws qllm::Error, naming the kernel.
template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, cudaStream_t stream,
            bool overlap, A... args) {
  if (shape.shared_bytes > (size_t{48} << 10U)) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          name);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...), name);
}

}  // namespace qllm::cuda
