#include "graph/liveness.h"

#include <algorithm>

namespace qllm {
namespace {

struct Inputs {
  std::vector<ValueId> operator()(const EmbedOp&) const { return {}; }
  std::vector<ValueId> operator()(const RmsNormOp& op) const { return {op.in}; }
  std::vector<ValueId> operator()(const LinearOp& op) const {
    if (op.residual == kNone) return {op.in};
    return {op.in, op.residual};
  }
  std::vector<ValueId> operator()(const RopeKvWriteOp& op) const { return {op.qkv}; }
  std::vector<ValueId> operator()(const AttentionOp& op) const { return {op.q}; }
  std::vector<ValueId> operator()(const SwiGluOp& op) const { return {op.gate_up}; }
  std::vector<ValueId> operator()(const SelectRowsOp& op) const { return {op.in}; }
};

struct Output {
  ValueId operator()(const RopeKvWriteOp& op) const { return op.q; }
  template <typename T>
  ValueId operator()(const T& op) const {
    return op.out;
  }
};

std::vector<size_t> last_uses(const Graph& graph) {
  std::vector<size_t> last(graph.values.size(), 0);
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    last[static_cast<size_t>(output_of(graph.ops[i]))] = i;
    for (ValueId in : inputs_of(graph.ops[i])) last[static_cast<size_t>(in)] = i;
  }
  last[static_cast<size_t>(graph.logits)] = graph.ops.size();
  return last;
}

}  // namespace

std::vector<ValueId> inputs_of(const Op& op) { return std::visit(Inputs{}, op); }
ValueId output_of(const Op& op) { return std::visit(Output{}, op); }

BufferPlan plan_buffers(const Graph& graph) {
  const std::vector<size_t> last = last_uses(graph);
  BufferPlan plan;
  plan.buffer_of.assign(graph.values.size(), kNone);
  std::vector<size_t> busy_until;  // per buffer: the op that reads it last
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const auto out = static_cast<size_t>(output_of(graph.ops[i]));
    const Value& value = graph.values[out];
    size_t b = 0;
    while (b < plan.buffers.size() && (busy_until[b] >= i || plan.buffers[b].rows != value.rows)) {
      ++b;
    }
    if (b == plan.buffers.size()) {
      plan.buffers.push_back({value.rows, 0});
      busy_until.push_back(0);
    }
    plan.buffers[b].width = std::max(plan.buffers[b].width, value.width);
    busy_until[b] = last[out];
    plan.buffer_of[out] = static_cast<int32_t>(b);
  }
  return plan;
}

}  // namespace qllm
