// What attention uses of the device beside device.h: 16-bit floats, two in a register with the
// first in the lower half, their products, and copies into shared memory in the background. Tests
// have a header of this name of their own, as of device.h.
#pragma once

#include <cuda_bf16.h>

#include "kernels/device.h"

namespace qllm::cuda {

/// Rounded to nearest even; beyond the range: infinity.
__device__ inline unsigned pack_f16(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const unsigned*>(&pair);
}
__device__ inline float2 unpack_f16(unsigned pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}
__device__ inline unsigned pack_bf16(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const unsigned*>(&pair);
}
__device__ inline float2 unpack_bf16(unsigned pair) {
  return make_float2(__uint_as_float(pair << 16U), __uint_as_float(pair & 0xffff0000U));
}

/// Four int8 as f16, exact: a byte u = q + 128 under the bits of 1024 in f16, whose last place is
/// 1, reads 1024 + u, and 1152 less is q.
__device__ inline void unpack_s8(unsigned codes, unsigned (&pairs)[2]) {
  const unsigned u = codes ^ 0x80808080U;
  constexpr unsigned k1024 = 0x64646464U, k1152 = 0x64806480U;
  const __half2 less = *reinterpret_cast<const __half2*>(&k1152);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned bits = __byte_perm(u, k1024, i == 0 ? 0x4140 : 0x4342);
    const __half2 pair = __hsub2(*reinterpret_cast<const __half2*>(&bits), less);
    pairs[i] = *reinterpret_cast<const unsigned*>(&pair);
  }
}

}  // namespace qllm::cuda

#include "kernels/mma_plain.h"

namespace qllm::cuda {

/// As mma_f16 (device.h), of bfloat16.
__device__ inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  mma_bf16_plain(d, a, b);
#endif
}

/// Copies 16 bytes into shared memory while the thread goes on; both addresses are multiples of 16.
/// Copies up to a commit are a group; wait<n> returns when all of the thread's groups but the last
/// n have come, which other threads see after a barrier. Before compute capability 8.0 the thread
/// copies at once.
__device__ inline void copy_async16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}
__device__ inline void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kGroups>
__device__ void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#endif
}

}  // namespace qllm::cuda
