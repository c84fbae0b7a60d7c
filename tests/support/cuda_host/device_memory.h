// Emulated device memory for tests of single kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "cuda_host/cuda_runtime.h"

namespace qllm {

/// The host may read it where it lies: the device is the host.
template <class T>
class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t count) {
    void* p = nullptr;
    if (cudaMalloc(&p, static_cast<size_t>(count) * sizeof(T)) != cudaSuccess) {
      throw std::runtime_error("no emulated device memory");
    }
    data_ = static_cast<T*>(p);
  }
  explicit DeviceMemory(const std::vector<T>& values)
      : DeviceMemory(static_cast<int64_t>(values.size())) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

}  // namespace qllm
