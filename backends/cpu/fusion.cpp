#include "fusion.h"

#include <algorithm>
#include <variant>

#include "quant/packing.h"

namespace qllm::cpu {
namespace {

int64_t reader_count(const Graph& graph, ValueId id) {
  int64_t count = id == graph.logits ? 1 : 0;
  for (const Op& op : graph.ops) {
    const std::vector<ValueId> in = inputs_of(op);
    count += std::count(in.begin(), in.end(), id);
  }
  return count;
}

/// Heads that begin and end on blocks of 64 outputs.
bool heads_fit_blocks(int64_t head_dim) {
  return head_dim % kBlockN == 0 || kBlockN % head_dim == 0;
}

/// The value of a linear that `op` goes on with by columns, or kNone.
ValueId followed_value(const Op& op) {
  if (const auto* swiglu = std::get_if<SwiGluOp>(&op)) return swiglu->gate_up;
  const auto* rope = std::get_if<RopeKvWriteOp>(&op);
  return rope != nullptr && heads_fit_blocks(rope->head_dim) ? rope->qkv : kNone;
}

bool follows(const Graph& graph, size_t linear) {
  const auto* op = std::get_if<LinearOp>(&graph.ops[linear]);
  return op != nullptr && linear + 1 < graph.ops.size() &&
         followed_value(graph.ops[linear + 1]) == op->out && reader_count(graph, op->out) == 1;
}

/// The linear at `i` reads what the norm before it made, and nothing else does.
bool reads_norm(const Graph& graph, size_t i) {
  const auto* op = std::get_if<LinearOp>(&graph.ops[i]);
  const auto* norm = i > 0 ? std::get_if<RmsNormOp>(&graph.ops[i - 1]) : nullptr;
  return op != nullptr && norm != nullptr && op->in == norm->out &&
         reader_count(graph, norm->out) == 1;
}

}  // namespace

Fusion find_fusion(const Graph& graph) {
  Fusion fusion;
  fusion.follower.assign(graph.ops.size(), kNone);
  fusion.stages.unstored.assign(graph.values.size(), false);
  int32_t stage = 0;
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const bool followed = i > 0 && fusion.has_follower(i - 1);
    if (i > 0 && !followed && !reads_norm(graph, i)) ++stage;
    fusion.stages.of_op.push_back(stage);
    if (!follows(graph, i)) continue;
    fusion.follower[i] = static_cast<int32_t>(i + 1);
    if (std::holds_alternative<SwiGluOp>(graph.ops[i + 1])) {
      fusion.stages.unstored[static_cast<size_t>(output_of(graph.ops[i]))] = true;
    }
  }
  return fusion;
}

std::vector<int64_t> shard_units(const Graph& graph) {
  std::vector<int64_t> units(graph.weights.size(), kBlockN);
  const Fusion fusion = find_fusion(graph);
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (!fusion.has_follower(i)) continue;
    const auto weight = static_cast<size_t>(std::get<LinearOp>(graph.ops[i]).weight);
    const auto* rope = std::get_if<RopeKvWriteOp>(&graph.ops[i + 1]);
    units[weight] = rope != nullptr ? std::max<int64_t>(kBlockN, rope->head_dim) : 2 * kBlockN;
  }
  return units;
}

}  // namespace qllm::cpu
