#include "int8_gemm.h"

#include "core/error.h"

namespace qllm::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

void check_blas(cublasStatus_t status, const char* what) {
  require(status == CUBLAS_STATUS_SUCCESS, ErrorCode::internal, "cuda: {}: cuBLASLt status {}",
          what, static_cast<int>(status));
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t rows, int64_t cols, int64_t ld) {
  cublasLtMatrixLayout_t out = nullptr;
  check_blas(cublasLtMatrixLayoutCreate(&out, type, static_cast<uint64_t>(rows),
                                        static_cast<uint64_t>(cols), ld),
             "cublasLtMatrixLayoutCreate");
  return out;
}

}  // namespace

Int8Gemm::Int8Gemm() : workspace_(kWorkspaceBytes, "cuBLASLt's workspace") {
  check_blas(cublasLtCreate(&handle_), "cublasLtCreate");
  check_blas(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32I, CUDA_R_32I),
             "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_blas(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                            sizeof(transposed)),
             "cublasLtMatmulDescSetAttribute");
}

Int8Gemm::~Int8Gemm() {
  for (auto& [size, way] : ways_) {
    for (cublasLtMatrixLayout_t l : {way.w, way.x, way.y}) {
      if (l != nullptr) cublasLtMatrixLayoutDestroy(l);
    }
  }
  if (product_ != nullptr) cublasLtMatmulDescDestroy(product_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

// cuBLASLt counts columns first: rows of ours are columns of its, and y^T = w^T' x^T with w as its
// A, transposed.
const Int8Gemm::Way& Int8Gemm::way(const Size& size) {
  Way& way = ways_[size];
  if (way.y != nullptr) return way;
  const auto [m, n, k, ld_x, ld_w] = size;
  if (way.w == nullptr) way.w = layout(CUDA_R_8I, k, n, ld_w);
  if (way.x == nullptr) way.x = layout(CUDA_R_8I, k, m, ld_x);
  cublasLtMatrixLayout_t y = layout(CUDA_R_32I, n, m, n);
  cublasLtMatmulPreference_t wish = nullptr;
  check_blas(cublasLtMatmulPreferenceCreate(&wish), "cublasLtMatmulPreferenceCreate");
  const auto bytes = static_cast<uint64_t>(kWorkspaceBytes);
  cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                       sizeof(bytes));
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, product_, way.w, way.x, y,
                                                               y, wish, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(wish);
  way.y = y;
  require(status == CUBLAS_STATUS_SUCCESS && count > 0, ErrorCode::internal,
          "cuda: cuBLASLt has no int8 product of {} x {} x {} (status {})", m, n, k,
          static_cast<int>(status));
  way.algorithm = found.algo;
  return way;
}

void Int8Gemm::multiply(const int8_t* x, int64_t ld_x, const int8_t* w, int64_t ld_w, int64_t m,
                        int64_t n, int64_t k, int32_t* sums, const Stream& stream) {
  const Way& how = way({m, n, k, ld_x, ld_w});
  const int32_t one = 1, zero = 0;
  check_blas(
      cublasLtMatmul(handle_, product_, &one, w, how.w, x, how.x, &zero, sums, how.y, sums, how.y,
                     &how.algorithm, workspace_.data(), kWorkspaceBytes, stream.get()),
      "cublasLtMatmul");
}

}  // namespace qllm::cuda
