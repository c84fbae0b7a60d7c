// The host's side of backends/cuda/kernels/device_half.h.
#pragma once

#include <deque>
#include <vector>

#include "kernels/device.h"
#include "quant/float_bits.h"

namespace qllm::cuda {

inline unsigned pack_f16(float first, float second) {
  return float_to_half(first) | static_cast<unsigned>(float_to_half(second)) << 16U;
}
inline float2 unpack_f16(unsigned pair) {
  return {half_to_float(static_cast<uint16_t>(pair)),
          half_to_float(static_cast<uint16_t>(pair >> 16U))};
}
inline unsigned pack_bf16(float first, float second) {
  return float_to_bfloat(first) | static_cast<unsigned>(float_to_bfloat(second)) << 16U;
}
inline float2 unpack_bf16(unsigned pair) {
  return {__uint_as_float(pair << 16U), __uint_as_float(pair & 0xffff0000U)};
}
inline void unpack_s8(unsigned codes, unsigned (&pairs)[2]) {
  for (int i = 0; i < 2; ++i) {
    pairs[i] = pack_f16(static_cast<int8_t>(codes >> (16 * i)),
                        static_cast<int8_t>(codes >> (16 * i + 8)));
  }
}

inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  using Product = emulated::Mma<float, emulated::Bf16, 16>;
  Product lane{&d, &a, &b};
  cuda_host::warp_collective(&lane, &Product::run);
}

namespace emulated {

/// A thread's copies that are under way. Under odd orders (set_order) they are made at once, else
/// as late as a device may make them: at the wait that needs them.
struct Copies {
  struct Copy {
    void* to;
    const void* from;
  };
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;

  static Copies& of_thread() {
    static thread_local std::vector<Copies> all(1024);
    return all[threadIdx.x];
  }
};

}  // namespace emulated

inline void copy_async16(void* shared, const void* global) {
  if (cuda_host::order() % 2 == 1) {
    std::memcpy(shared, global, 16);
  } else {
    emulated::Copies::of_thread().open.push_back({shared, global});
  }
}
inline void copy_async_commit() {
  emulated::Copies& copies = emulated::Copies::of_thread();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}
template <int kGroups>
void copy_async_wait() {
  auto& groups = emulated::Copies::of_thread().groups;
  while (static_cast<int>(groups.size()) > kGroups) {
    for (const auto& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
    groups.pop_front();
  }
}

}  // namespace qllm::cuda

#include "kernels/mma_plain.h"  // on what stands above
