// Products of many tokens by cuBLASLt, which takes the device's tensor cores best.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "cuda_device.h"

namespace qllm::cuda {

enum class GemmKind : uint8_t {
  int8,  ///< int8 by int8 to int32, exact
  f16,   ///< f16 by f16 to f16 with float32 sums
};

/// y[m, n] = sum_k x[m, k] w[n, k]: x [m, ld_x] and w [n, ld_w] row by row, k, the distances and n
/// multiples of 16 (cuBLAS's manual: the "TN" form that int8 wants). The way of each size is asked
/// for once and kept. One thread at a time.
class LtGemm {
 public:
  explicit LtGemm(GemmKind kind);
  ~LtGemm();
  LtGemm(const LtGemm&) = delete;
  LtGemm& operator=(const LtGemm&) = delete;

  void multiply(const void* x, int64_t ld_x, const void* w, int64_t ld_w, int64_t m, int64_t n,
                int64_t k, void* y, const Stream& stream);

 private:
  struct Way {
    cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
    cublasLtMatmulAlgo_t algorithm = {};
  };
  using Size = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>;
  const Way& way(const Size& size);

  GemmKind kind_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  DeviceBuffer workspace_;
  std::map<Size, Way> ways_;
};

}  // namespace qllm::cuda
