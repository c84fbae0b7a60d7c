// int8 products of many tokens by cuBLASLt, which takes the device's tensor cores best.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "cuda_device.h"

namespace qllm::cuda {

/// sums[m, n] = sum_k x[m, k] w[n, k], int32 and exact: x [m, ld_x] and w [n, ld_w] row by row, k,
/// the distances and n multiples of 16 (cuBLAS's manual: the "TN" form that int8 wants). The way of
/// each size is asked for once and kept. One thread at a time.
class Int8Gemm {
 public:
  Int8Gemm();
  ~Int8Gemm();
  Int8Gemm(const Int8Gemm&) = delete;
  Int8Gemm& operator=(const Int8Gemm&) = delete;

  void multiply(const int8_t* x, int64_t ld_x, const int8_t* w, int64_t ld_w, int64_t m, int64_t n,
                int64_t k, int32_t* sums, const Stream& stream);

 private:
  struct Way {
    cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
    cublasLtMatmulAlgo_t algorithm = {};
  };
  using Size = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>;
  const Way& way(const Size& size);

  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  DeviceBuffer workspace_;
  std::map<Size, Way> ways_;
};

}  // namespace qllm::cuda
