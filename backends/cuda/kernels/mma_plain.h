// A tensor-core product in plain arithmetic, for devices without it.
#pragma once

namespace qllm::cuda {

/// mma_bf16 (device_half.h): each lane gathers the rows of a and the columns of b that it needs.
/// Exact products, summed in the order of k. Slow: 32 exchanges.
__device__ inline void mma_bf16_plain(float (&d)[4], const unsigned (&a)[4],
                                      const unsigned (&b)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  for (int half = 0; half < 2; ++half) {
    for (int pair = 0; pair < 4; ++pair) {
      const float2 upper = unpack_bf16(shuffle(a[2 * half], g * 4 + pair));
      const float2 lower = unpack_bf16(shuffle(a[2 * half + 1], g * 4 + pair));
      const float2 left = unpack_bf16(shuffle(b[half], 8 * t + pair));
      const float2 right = unpack_bf16(shuffle(b[half], 8 * t + 4 + pair));
      d[0] += upper.x * left.x + upper.y * left.y;
      d[1] += upper.x * right.x + upper.y * right.y;
      d[2] += lower.x * left.x + lower.y * left.y;
      d[3] += lower.x * right.x + lower.y * right.y;
    }
  }
}

}  // namespace qllm::cuda
