#include "graph/builder.h"

#include <utility>

#include "core/error.h"
#include "core/math.h"

namespace qllm {
namespace {

constexpr int64_t kSwiGluBlock = 64;

void expect_width(const Value& value, int64_t expected, const char* op) {
  require(value.width == expected, ErrorCode::bad_format, "{}: input {} is {} wide, expected {}",
          op, value.name, value.width, expected);
}

}  // namespace

ValueId GraphBuilder::add_value(std::string name, Rows rows, int64_t width) {
  graph_.values.push_back({std::move(name), rows, width});
  return static_cast<ValueId>(graph_.values.size()) - 1;
}

WeightId GraphBuilder::linear_weight(std::string name, int64_t n, int64_t k,
                                     std::vector<RowSpan> rows) {
  for (const RowSpan& span : rows) {
    require(span.row >= 0 && span.count >= 0 && span.row + span.count <= n, ErrorCode::bad_format,
            "{}: rows [{}, {}) of {} lie outside [0, {})", name, span.row, span.row + span.count,
            span.tensor, n);
  }
  graph_.weights.push_back({std::move(name), WeightRole::linear, n, k, std::move(rows)});
  return static_cast<WeightId>(graph_.weights.size()) - 1;
}

WeightId GraphBuilder::lm_head_weight(std::string name, int64_t n, int64_t k,
                                      std::vector<RowSpan> rows) {
  const WeightId id = linear_weight(std::move(name), n, k, std::move(rows));
  graph_.weights.back().lm_head = true;
  return id;
}

WeightId GraphBuilder::embedding_weight(const std::string& tensor, int64_t n, int64_t k) {
  graph_.weights.push_back({tensor, WeightRole::embedding, n, k, {{tensor, 0, 0, n}}});
  return static_cast<WeightId>(graph_.weights.size()) - 1;
}

WeightId GraphBuilder::vector_weight(std::string name, int64_t k, std::vector<RowSpan> parts) {
  if (parts.empty()) parts.push_back({name, 0, 0, k});
  graph_.weights.push_back({std::move(name), WeightRole::vector, 1, k, std::move(parts)});
  return static_cast<WeightId>(graph_.weights.size()) - 1;
}

ValueId GraphBuilder::embed(WeightId table) {
  const ValueId out = add_value("embed", Rows::tokens, graph_.weight(table).k);
  graph_.ops.emplace_back(EmbedOp{table, out});
  return out;
}

ValueId GraphBuilder::rms_norm(ValueId in, WeightId gain, float eps, const std::string& label) {
  const Value x = graph_.value(in);
  if (gain != kNone) expect_width(x, graph_.weight(gain).k, "rms_norm");
  const std::string name = gain != kNone ? graph_.weight(gain).name : label;
  const ValueId out = add_value(name.empty() ? x.name + ".norm" : name + ".out", x.rows, x.width);
  graph_.ops.emplace_back(RmsNormOp{in, gain, eps, out});
  return out;
}

ValueId GraphBuilder::linear(ValueId in, WeightId weight, WeightId bias, ValueId residual) {
  const Weight& w = graph_.weight(weight);
  expect_width(graph_.value(in), w.k, "linear");
  const Rows rows = graph_.value(in).rows;
  if (bias != kNone) {
    require(graph_.weight(bias).k == w.n, ErrorCode::bad_format,
            "linear {}: bias of {}, expected {}", w.name, graph_.weight(bias).k, w.n);
  }
  if (residual != kNone) {
    expect_width(graph_.value(residual), w.n, "linear residual");
    require(graph_.value(residual).rows == rows, ErrorCode::bad_format,
            "linear {}: residual {} has other rows than the input", w.name,
            graph_.value(residual).name);
  }
  const ValueId out = add_value(w.name + ".out", rows, w.n);
  graph_.ops.emplace_back(LinearOp{in, weight, bias, residual, out});
  return out;
}

ValueId GraphBuilder::rope_kv_write(ValueId qkv, RopeKvWriteOp shape) {
  const int64_t heads = shape.n_heads + int64_t{2} * shape.n_kv_heads;
  expect_width(graph_.value(qkv), heads * shape.head_dim, "rope_kv_write");
  require(static_cast<int64_t>(shape.inv_freq.size()) * 2 <= shape.head_dim, ErrorCode::bad_format,
          "rope_kv_write: {} frequencies for a head of {}", shape.inv_freq.size(), shape.head_dim);
  shape.qkv = qkv;
  shape.q = add_value("blk." + std::to_string(shape.layer) + ".q", Rows::tokens,
                      int64_t{shape.n_heads} * shape.head_dim);
  const ValueId q = shape.q;
  graph_.ops.emplace_back(std::move(shape));
  return q;
}

ValueId GraphBuilder::attention(ValueId q, AttentionOp shape) {
  expect_width(graph_.value(q), int64_t{shape.n_heads} * shape.head_dim, "attention");
  require(shape.n_kv_heads > 0 && shape.n_heads % shape.n_kv_heads == 0, ErrorCode::bad_format,
          "attention: {} heads over {} KV heads", shape.n_heads, shape.n_kv_heads);
  require(shape.window >= 0 && shape.softcap >= 0.0F, ErrorCode::bad_format,
          "attention: window {} and soft cap {}, expected 0 or more", shape.window, shape.softcap);
  shape.q = q;
  shape.out = add_value("blk." + std::to_string(shape.layer) + ".attention", Rows::tokens,
                        graph_.value(q).width);
  graph_.ops.emplace_back(shape);
  return shape.out;
}

ValueId GraphBuilder::swiglu(ValueId gate_up, int64_t d_ff, int32_t hadamard) {
  expect_width(graph_.value(gate_up), 2 * round_up(d_ff, kSwiGluBlock), "swiglu");
  require(hadamard == 0 || (hadamard == kSwiGluBlock && d_ff % kSwiGluBlock == 0),
          ErrorCode::bad_format, "swiglu: Hadamard blocks of {} over {} values, expected 0 or {}",
          hadamard, d_ff, kSwiGluBlock);
  const ValueId out =
      add_value(graph_.value(gate_up).name + ".swiglu", graph_.value(gate_up).rows, d_ff);
  graph_.ops.emplace_back(SwiGluOp{gate_up, out, hadamard});
  return out;
}

ValueId GraphBuilder::select_rows(ValueId in) {
  const ValueId out = add_value("selected", Rows::outputs, graph_.value(in).width);
  graph_.ops.emplace_back(SelectRowsOp{in, out});
  return out;
}

Graph GraphBuilder::finish(ValueId logits) {
  require(graph_.value(logits).rows == Rows::outputs, ErrorCode::bad_format,
          "logits {} must be a value of output rows", graph_.value(logits).name);
  graph_.logits = logits;
  return std::move(graph_);
}

}  // namespace qllm
