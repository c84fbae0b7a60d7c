#include "model/gguf_source.h"

#include "core/error.h"
#include "quant/ggml_dequant.h"
#include "quant/ggml_grid.h"

namespace qllm {

void read_tensor_rows(const GgufTensor& tensor, int64_t row, int64_t count, float* out) {
  const std::byte* data = tensor.data.data() + row * tensor.row_bytes();
  dequantize_row(tensor.type, data, count * tensor.row_length(), out);  // rows are whole blocks
}

const GgufTensor& GgufTensorSource::find_rows(const std::string& tensor, int64_t row,
                                              int64_t count) const {
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
  return *found;
}

void GgufTensorSource::read_rows(const std::string& tensor, int64_t row, int64_t count,
                                 float* out) const {
  read_tensor_rows(find_rows(tensor, row, count), row, count, out);
}

std::optional<GroupFormat> GgufTensorSource::grid(const std::string& tensor) const {
  return ggml_grid(find_rows(tensor, 0, 0).type);
}

void GgufTensorSource::read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const {
  const GgufTensor& found = find_rows(tensor, row, 1);
  require(ggml_grid(found.type).has_value(), ErrorCode::unsupported,
          "{}: tensor {}: type {} lies on no grid of groups", file_->origin(), found.name,
          ggml_type_info(found.type).name);
  const std::byte* data = found.data.data() + row * found.row_bytes();
  read_ggml_grid_row(found.type, data, found.row_length(), out);
}

}  // namespace qllm
