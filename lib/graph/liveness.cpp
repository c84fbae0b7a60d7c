#include "graph/liveness.h"

#include <algorithm>

namespace qllm {
namespace {

struct Inputs {
  std::vector<ValueId> operator()(const InputOp&) const { return {}; }
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

int64_t stage_of(const Stages& stages, size_t op) {
  return stages.of_op.empty() ? static_cast<int64_t>(op) : stages.of_op[op];
}

/// Per value: the stage that touches it last.
std::vector<int64_t> last_uses(const Graph& graph, const Stages& stages) {
  std::vector<int64_t> last(graph.values.size(), 0);
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const int64_t stage = stage_of(stages, i);
    last[static_cast<size_t>(output_of(graph.ops[i]))] = stage;
    for (ValueId in : inputs_of(graph.ops[i])) last[static_cast<size_t>(in)] = stage;
  }
  last[static_cast<size_t>(graph.logits)] = static_cast<int64_t>(graph.ops.size());
  return last;
}

}  // namespace

std::vector<ValueId> inputs_of(const Op& op) { return std::visit(Inputs{}, op); }
ValueId output_of(const Op& op) { return std::visit(Output{}, op); }

BufferPlan plan_buffers(const Graph& graph, const Stages& stages) {
  const std::vector<int64_t> last = last_uses(graph, stages);
  BufferPlan plan;
  plan.buffer_of.assign(graph.values.size(), kNone);
  std::vector<int64_t> busy_until;  // per buffer: the stage that reads it last
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const auto out = static_cast<size_t>(output_of(graph.ops[i]));
    if (!stages.unstored.empty() && stages.unstored[out]) continue;
    const Value& value = graph.values[out];
    const int64_t stage = stage_of(stages, i);
    size_t b = 0;
    while (b < plan.buffers.size() &&
           (busy_until[b] >= stage || plan.buffers[b].rows != value.rows)) {
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
