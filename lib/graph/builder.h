// Builds a Graph with shape inference: each method appends one op and returns its output value.
// A shape that does not fit throws ErrorCode::bad_format and names both sides.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace qllm {

class GraphBuilder {
 public:
  /// Declares a linear weight W[n, k] made of row spans of model tensors.
  WeightId linear_weight(std::string name, int64_t n, int64_t k, std::vector<RowSpan> rows);
  /// The same, of the linear whose outputs are the logits.
  WeightId lm_head_weight(std::string name, int64_t n, int64_t k, std::vector<RowSpan> rows);
  /// Declares a table [n, k] that is the tensor of that name.
  WeightId embedding_weight(const std::string& tensor, int64_t n, int64_t k);
  /// Declares a float32 vector [k]: a tensor, or several laid end to end.
  WeightId vector_weight(std::string name, int64_t k, std::vector<RowSpan> parts = {});

  ValueId embed(WeightId table);  // [tokens, k]
  /// Gain may be kNone; it is then called `label`.
  ValueId rms_norm(ValueId in, WeightId gain, float eps, const std::string& label = {});  // as in
  ValueId linear(ValueId in, WeightId weight, WeightId bias = kNone,
                 ValueId residual = kNone);  // [rows, n]
  /// Takes style, heads, layer and inv_freq from `shape`; returns the rotated q.
  ValueId rope_kv_write(ValueId qkv, RopeKvWriteOp shape);  // [tokens, n_heads*head_dim]
  ValueId attention(ValueId q, AttentionOp shape);          // [tokens, n_heads*head_dim]
  /// `hadamard`: 0, or 64 where d_ff is a multiple of it.
  ValueId swiglu(ValueId gate_up, int64_t d_ff, int32_t hadamard = 0);  // [rows, d_ff]
  ValueId select_rows(ValueId in);                                      // [outputs, width]

  /// Ends the building; `logits` must be a value of output rows.
  Graph finish(ValueId logits);

 private:
  ValueId add_value(std::string name, Rows rows, int64_t width);
  Graph graph_;
};

}  // namespace qllm
