// The host's side of backends/cuda/kernels/device.h: the same names, on emulated threads. Tensor
// products are computed from the layout of PTX's manual, not from how the kernels use it.
#pragma once

#include <tuple>
#include <type_traits>

#include "cuda_error.h"
#include "cuda_fp16.h"
#include "cuda_host/cuda_runtime.h"
#include "cuda_host/runtime.h"

namespace qllm::cuda {

inline constexpr int kWarp = 32;

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(cuda_host::shared_memory(0));
}

namespace emulated {

/// What one lane brings to an exchange and takes from it.
template <class T>
struct Exchange {
  T value;
  int from;
  T result;

  static void run(void* const* lanes) {
    for (int i = 0; i < kWarp; ++i) {
      if (lanes[i] == nullptr) continue;
      auto* const lane = static_cast<Exchange*>(lanes[i]);
      const auto* const other = static_cast<const Exchange*>(lanes[lane->from & (kWarp - 1)]);
      lane->result = other != nullptr ? other->value : T{};
    }
  }
};

template <class T, class Op>
struct Reduce {
  T value;

  static void run(void* const* lanes) {
    T all = static_cast<const Reduce*>(lanes[0])->value;
    for (int i = 1; i < kWarp; ++i) all = Op{}(all, static_cast<const Reduce*>(lanes[i])->value);
    for (int i = 0; i < kWarp; ++i) static_cast<Reduce*>(lanes[i])->value = all;
  }
};

// Floats are summed as a device's exchanges sum them: pairs at a distance of 16, then of 8, ...
struct TreeSum {
  float value;

  static void run(void* const* lanes) {
    float v[kWarp];
    for (int i = 0; i < kWarp; ++i) v[i] = static_cast<const TreeSum*>(lanes[i])->value;
    for (int half = kWarp / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) v[i] += v[i + half];
    }
    for (int i = 0; i < kWarp; ++i) static_cast<TreeSum*>(lanes[i])->value = v[0];
  }
};

struct Larger {
  float operator()(float a, float b) const { return std::fmax(a, b); }
};

struct Sum {
  int operator()(int a, int b) const { return a + b; }
};

/// Names the type of what mma_bf16 multiplies.
struct Bf16 {};

/// Registers of one lane: element (row, col) of A, B and D as the manual places them.
template <class D, class Value, int kK>
struct Mma {
  D (*d)[4];
  const unsigned (*a)[4];
  const unsigned (*b)[2];

  static constexpr int kPerRegister = kK / 8;  // int8: 4, f16: 2

  static D value(unsigned reg, int i) {
    if constexpr (kPerRegister == 4) {
      return static_cast<int8_t>(reg >> (8 * i));
    } else if constexpr (std::is_same_v<Value, Bf16>) {
      return __uint_as_float(reg >> (16 * i) << 16);
    } else {
      return __half2float(__ushort_as_half(static_cast<unsigned short>(reg >> (16 * i))));
    }
  }
  /// A[row][k]: lane (row % 8) * 4 + t holds k of its unit in register (row / 8) + 2 (k / half).
  static D a_at(void* const* lanes, int row, int k) {
    const int half = kK / 2, in_half = k % half;
    const auto* lane = static_cast<const Mma*>(lanes[row % 8 * 4 + in_half / kPerRegister]);
    return value((*lane->a)[row / 8 + 2 * (k / half)], in_half % kPerRegister);
  }
  static D b_at(void* const* lanes, int k, int col) {
    const int half = kK / 2, in_half = k % half;
    const auto* lane = static_cast<const Mma*>(lanes[col * 4 + in_half / kPerRegister]);
    return value((*lane->b)[k / half], in_half % kPerRegister);
  }

  static void run(void* const* lanes) {
    D a[16][kK], b[kK][8];
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < kK; ++k) a[row][k] = a_at(lanes, row, k);
    }
    for (int k = 0; k < kK; ++k) {
      for (int col = 0; col < 8; ++col) b[k][col] = b_at(lanes, k, col);
    }
    for (int row = 0; row < 16; ++row) {
      for (int col = 0; col < 8; ++col) {
        D sum = 0;
        for (int k = 0; k < kK; ++k) sum += a[row][k] * b[k][col];
        auto* lane = static_cast<Mma*>(lanes[row % 8 * 4 + col / 2]);
        (*lane->d)[row / 8 * 2 + col % 2] += sum;
      }
    }
  }
};

template <class T>
T exchange(T v, int from) {
  Exchange<T> lane{v, from, {}};
  cuda_host::warp_collective(&lane, &Exchange<T>::run);
  return lane.result;
}

inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }

inline void nothing(void* const* /*lanes*/) {}

}  // namespace emulated

template <class T>
T shuffle_xor(T v, int mask) {
  return emulated::exchange(v, emulated::lane_index() ^ mask);
}
template <class T>
T shuffle(T v, int from) {
  return emulated::exchange(v, from);
}
inline void sync_warp() { cuda_host::warp_collective(nullptr, &emulated::nothing); }

inline int warp_sum(int v) {
  emulated::Reduce<int, emulated::Sum> lane{v};
  cuda_host::warp_collective(&lane, &emulated::Reduce<int, emulated::Sum>::run);
  return lane.value;
}
inline float warp_sum(float v) {
  emulated::TreeSum lane{v};
  cuda_host::warp_collective(&lane, &emulated::TreeSum::run);
  return lane.value;
}
inline float warp_max(float v) {
  emulated::Reduce<float, emulated::Larger> lane{v};
  cuda_host::warp_collective(&lane, &emulated::Reduce<float, emulated::Larger>::run);
  return lane.value;
}

inline uint4 load_once(const void* p) { return *static_cast<const uint4*>(p); }
inline uint4 load_again(const void* p) { return *static_cast<const uint4*>(p); }

inline void wait_for_previous() {}

inline void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  using Product = emulated::Mma<int, int8_t, 32>;
  Product lane{&d, &a, &b};
  cuda_host::warp_collective(&lane, &Product::run);
}
inline void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  using Product = emulated::Mma<float, __half, 16>;
  Product lane{&d, &a, &b};
  cuda_host::warp_collective(&lane, &Product::run);
}

struct LaunchShape {
  dim3 grid;
  int threads = 0;
  size_t shared_bytes = 0;
};

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, cudaStream_t stream,
            bool /*overlap*/, A... args) {
  const cuda_host::Shape s{{shape.grid.x, shape.grid.y, shape.grid.z},
                           {static_cast<unsigned>(shape.threads), 1, 1},
                           shape.shared_bytes};
  // Arguments are copied at the launch, as a device's are.
  std::tuple<P...> copies(static_cast<P>(args)...);
  cuda_host::enqueue(stream,
                     [=] { cuda_host::run_kernel(name, s, [&] { std::apply(kernel, copies); }); });
  check(cudaGetLastError(), name);
}

}  // namespace qllm::cuda
