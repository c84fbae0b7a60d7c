#include "lt_gemm.h"

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

LtGemm::LtGemm(GemmKind kind) : kind_(kind), workspace_(kWorkspaceBytes, "cuBLASLt's workspace") {
  check_blas(cublasLtCreate(&handle_), "cublasLtCreate");
  const bool int8 = kind == GemmKind::int8;
  check_blas(cublasLtMatmulDescCreate(&product_, int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                      int8 ? CUDA_R_32I : CUDA_R_32F),
             "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_blas(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                            sizeof(transposed)),
             "cublasLtMatmulDescSetAttribute");
}

LtGemm::~LtGemm() {
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
const LtGemm::Way& LtGemm::way(const Size& size) {
  Way& way = ways_[size];
  if (way.y != nullptr) return way;
  const auto [m, n, k, ld_x, ld_w] = size;
  const bool int8 = kind_ == GemmKind::int8;
  const cudaDataType_t in = int8 ? CUDA_R_8I : CUDA_R_16F;
  if (way.w == nullptr) way.w = layout(in, k, n, ld_w);
  if (way.x == nullptr) way.x = layout(in, k, m, ld_x);
  cublasLtMatrixLayout_t y = layout(int8 ? CUDA_R_32I : CUDA_R_16F, n, m, n);
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
          "cuda: cuBLASLt has no product of {} x {} x {} (status {})", m, n, k,
          static_cast<int>(status));
  way.algorithm = found.algo;
  return way;
}

void LtGemm::multiply(const void* x, int64_t ld_x, const void* w, int64_t ld_w, int64_t m,
                      int64_t n, int64_t k, void* y, const Stream& stream) {
  const Way& how = way({m, n, k, ld_x, ld_w});
  const int32_t one_s32 = 1, zero_s32 = 0;
  const float one_f32 = 1, zero_f32 = 0;
  const bool int8 = kind_ == GemmKind::int8;
  const void* one = int8 ? static_cast<const void*>(&one_s32) : &one_f32;
  const void* zero = int8 ? static_cast<const void*>(&zero_s32) : &zero_f32;
  check_blas(cublasLtMatmul(handle_, product_, one, w, how.w, x, how.x, zero, y, how.y, y, how.y,
                            &how.algorithm, workspace_.data(), kWorkspaceBytes, stream.get()),
             "cublasLtMatmul");
}

}  // namespace qllm::cuda
