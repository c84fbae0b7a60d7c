#include "cublasLt.h"
#include "cuda_fp16.h"
#include "runtime.h"

struct EmulatedBlas {};
struct EmulatedWish {};
struct EmulatedProduct {
  cublasComputeType_t compute;
  bool transposed_a = false;
};
struct EmulatedLayout {
  cudaDataType_t type;
  int64_t rows, cols, ld;
};

namespace {

/// The sizes that the manual asks of int8 products of regular order: A transposed, pointers and
/// distances aligned, rows of A and k multiples of 4.
bool supported(const EmulatedProduct& p, const EmulatedLayout& a, const EmulatedLayout& b,
               const EmulatedLayout& d) {
  const bool int8 = p.compute == CUBLAS_COMPUTE_32I;
  const cudaDataType_t in = int8 ? CUDA_R_8I : CUDA_R_16F, out = int8 ? CUDA_R_32I : CUDA_R_16F;
  return p.transposed_a && a.type == in && b.type == in && d.type == out && a.rows == b.rows &&
         a.cols == d.rows && b.cols == d.cols && a.rows % 4 == 0 && a.cols % 4 == 0 &&
         a.ld % 4 == 0 && b.ld % 4 == 0 && d.ld % 4 == 0 && a.ld >= a.rows && b.ld >= b.rows &&
         d.ld >= d.rows;
}

float widened(__half v) { return __half2float(v); }
int32_t widened(int8_t v) { return v; }
void store(float sum, __half* y) { *y = __float2half_rn(sum); }
void store(int32_t sum, int32_t* y) { *y = sum; }

template <class In, class Out, class Sum>
void multiply(const EmulatedLayout& a, const In* w, const EmulatedLayout& b, const In* x,
              const EmulatedLayout& d, Out* y, Sum zero) {
#pragma omp parallel for
  for (int64_t i = 0; i < a.cols; ++i) {
    for (int64_t j = 0; j < b.cols; ++j) {
      Sum sum = zero;
      for (int64_t k = 0; k < a.rows; ++k) {
        sum += widened(w[i * a.ld + k]) * widened(x[j * b.ld + k]);
      }
      store(sum, y + j * d.ld + i);
    }
  }
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new EmulatedBlas;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *desc = new EmulatedProduct{compute};
  const bool fits = scale == (compute == CUBLAS_COMPUTE_32I ? CUDA_R_32I : CUDA_R_32F);
  return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t /*attribute*/,
                                              const void* value, size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  desc->transposed_a = *static_cast<const cublasOperation_t*>(value) == CUBLAS_OP_T;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
  *layout = new EmulatedLayout{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* wish) {
  *wish = new EmulatedWish;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t wish) {
  delete wish;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t /*wish*/, cublasLtMatmulPreferenceAttributes_t /*attribute*/,
    const void* /*value*/, size_t /*bytes*/) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t /*c*/, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t /*wish*/, int wanted, cublasLtMatmulHeuristicResult_t* results,
    int* found) {
  *found = 0;
  if (wanted < 1 || !supported(*desc, *a, *b, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
  results[0] = {};
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t desc,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t la,
                              const void* b, cublasLtMatrixLayout_t lb, const void* beta,
                              const void* /*c*/, cublasLtMatrixLayout_t /*lc*/, void* d,
                              cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t* /*algorithm*/,
                              void* /*workspace*/, size_t /*workspace_bytes*/,
                              cudaStream_t stream) {
  if (!supported(*desc, *la, *lb, *ld)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const EmulatedLayout A = *la, B = *lb, D = *ld;
  if (desc->compute == CUBLAS_COMPUTE_32F) {
    if (*static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0) {
      return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    qllm::cuda_host::enqueue(stream, [=] {
      multiply(A, static_cast<const __half*>(a), B, static_cast<const __half*>(b), D,
               static_cast<__half*>(d), 0.0F);
    });
    return CUBLAS_STATUS_SUCCESS;
  }
  if (*static_cast<const int32_t*>(alpha) != 1 || *static_cast<const int32_t*>(beta) != 0) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  qllm::cuda_host::enqueue(stream, [=] {
    multiply(A, static_cast<const int8_t*>(a), B, static_cast<const int8_t*>(b), D,
             static_cast<int32_t*>(d), int32_t{0});
  });
  return CUBLAS_STATUS_SUCCESS;
}
