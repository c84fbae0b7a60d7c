// Bytes of weights, activations, keys and values in the forms in which they lie in memory.
#pragma once

#include <string>
#include <string_view>

#include "qllm/roofline.hpp"
#include "quant/scheme.h"
#include "roofline/count.h"

namespace qllm::roofline {

/// How rows of a linear are held.
struct LinearFormat {
  enum class Kind : uint8_t { f32, f16, row_int8, groups };
  Kind kind = Kind::row_int8;
  GroupFormat groups;
};

/// What a --scheme of the roofline means for a shape.
class Formats {
 public:
  /// Throws invalid_argument for an unknown name, unsupported for "keep" without a file's tensors.
  Formats(const Shape& shape, const std::string& scheme);

  /// Of a linear named as in GGUF files ("attn_q", "ffn_down", "output"), of the first layer.
  LinearFormat linear(std::string_view tensor) const;
  /// Whether its rows are held as the sum of two int8 rows: V's, where weights are int8 by rows.
  bool two_terms(std::string_view tensor) const {
    return tensor == "attn_v" && linear(tensor).kind == LinearFormat::Kind::row_int8;
  }
  /// A linear's weights as --scheme calls them: "int8" for all that is int8 by rows.
  std::string name(std::string_view tensor) const;
  /// The rate at which linears are computed.
  Arithmetic arithmetic() const;
  /// Whether activations are quantized before a linear.
  bool quantizes() const { return !is_float_; }
  /// Bytes of one token's activations of k values, as a linear reads them: int8 with a float32
  /// scale per token, or per group of inputs.
  Count activation(int64_t k, std::string_view tensor) const;

 private:
  LinearFormat from_file(std::string_view tensor) const;

  const Shape& shape_;
  std::string scheme_name_;
  bool is_float_ = false;  // fp32 or fp16
  bool is_half_ = false;
  Scheme scheme_;
};

/// Bytes of `rows` rows of k inputs; rows are padded to 64 by whoever calls (see padded_rows).
Count linear_bytes(const LinearFormat& format, int64_t rows, int64_t k);
/// Rows as they are stored: packed ones come in blocks of 64.
int64_t padded_rows(const LinearFormat& format, int64_t rows);

/// Bytes of one key (or value) of one KV head: bf16, or int8 with a float32 scale; head_dim is
/// padded to a multiple of 16. Throws invalid_argument for an unknown name.
Count kv_vector_bytes(std::string_view kv, int64_t head_dim);

}  // namespace qllm::roofline
