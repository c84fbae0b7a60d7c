#include "model/gguf_source.h"

#include "core/error.h"
#include "quant/ggml_dequant.h"

namespace qllm {

void read_tensor_rows(const GgufTensor& tensor, int64_t row, int64_t count, float* out) {
  const std::byte* data = tensor.data.data() + row * tensor.row_bytes();
  dequantize_row(tensor.type, data, count * tensor.row_length(), out);  // rows are whole blocks
}

void GgufTensorSource::read_rows(const std::string& tensor, int64_t row, int64_t count,
                                 float* out) const {
  const GgufTensor* found = file_->find_tensor(tensor);
  require(found != nullptr, ErrorCode::not_found, "{}: tensor {}: missing", file_->origin(),
          printable(tensor));
  require(found->shape.size() <= 2, ErrorCode::unsupported,
          "{}: tensor {}: expected 1 or 2 dimensions, found {}", file_->origin(), found->name,
          found->shape.size());
  const int64_t rows = found->rows();
  require(row >= 0 && count >= 0 && row <= rows && count <= rows - row, ErrorCode::invalid_argument,
          "{}: tensor {}: {} rows from row {} on asked of {}", file_->origin(), found->name, count,
          row, rows);
  read_tensor_rows(*found, row, count, out);
}

}  // namespace qllm
