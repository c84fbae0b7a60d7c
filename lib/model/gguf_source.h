// The tensors of a GGUF file as float32 rows.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "model/gguf.h"

namespace qllm {

/// Rows [row, row+count) of a tensor, out [count, row length]. Precondition: the rows exist.
void read_tensor_rows(const GgufTensor& tensor, int64_t row, int64_t count, float* out);

/// Dequantizes on every read; holds nothing but the file.
class GgufTensorSource final : public TensorSource {
 public:
  explicit GgufTensorSource(std::shared_ptr<const GgufFile> file) : file_(std::move(file)) {}
  /// Rows of a 1-D (one row) or 2-D tensor, out [count, row length]. Throws not_found for an
  /// unknown tensor, invalid_argument for rows outside of it, unsupported for more than two
  /// dimensions.
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override;

  /// Q4_0, Q4_1, Q4_K and Q8_0 have one. Throws as read_rows for an unknown tensor.
  std::optional<GroupFormat> grid(const std::string& tensor) const override;
  void read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const override;

  void release() const override { file_->release(); }

  const GgufFile& file() const { return *file_; }

 private:
  /// The tensor, of at least `row` + `count` rows.
  const GgufTensor& find_rows(const std::string& tensor, int64_t row, int64_t count) const;
  std::shared_ptr<const GgufFile> file_;
};

}  // namespace qllm
