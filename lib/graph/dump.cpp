#include <fmt/format.h>

#include "graph/graph.h"

namespace qllm {
namespace {

std::string show(const Graph& graph, ValueId id) {
  const Value& v = graph.value(id);
  return fmt::format("%{} [{}, {}]", id, v.rows == Rows::tokens ? "tokens" : "outputs", v.width);
}

struct Line {
  const Graph& graph;

  std::string weight(WeightId id) const {
    const Weight& w = graph.weight(id);
    return fmt::format("{} [{}, {}]", w.name, w.n, w.k);
  }
  std::string operator()(const InputOp& op) const {
    return fmt::format("{} = input", show(graph, op.out));
  }
  std::string operator()(const EmbedOp& op) const {
    return fmt::format("{} = embed {}", show(graph, op.out), weight(op.table));
  }
  std::string operator()(const RmsNormOp& op) const {
    return fmt::format("{} = rms_norm %{} {} eps {}", show(graph, op.out), op.in,
                       op.gain == kNone ? "no gain" : weight(op.gain), op.eps);
  }
  std::string operator()(const LinearOp& op) const {
    std::string line =
        fmt::format("{} = linear %{} {}", show(graph, op.out), op.in, weight(op.weight));
    if (op.bias != kNone) line += " bias " + weight(op.bias);
    if (op.residual != kNone) line += fmt::format(" + %{}", op.residual);
    return line;
  }
  std::string operator()(const RopeKvWriteOp& op) const {
    return fmt::format("{} = rope_kv_write %{} layer {} heads {}/{} x {} {} rotary {}",
                       show(graph, op.q), op.qkv, op.layer, op.n_heads, op.n_kv_heads, op.head_dim,
                       op.style == RopeStyle::adjacent ? "adjacent" : "half",
                       2 * op.inv_freq.size());
  }
  std::string operator()(const AttentionOp& op) const {
    std::string line = fmt::format("{} = attention %{} layer {} scale {}", show(graph, op.out),
                                   op.q, op.layer, op.scale);
    if (op.window != 0) line += fmt::format(" window {}", op.window);
    if (op.softcap != 0.0F) line += fmt::format(" softcap {}", op.softcap);
    return line;
  }
  std::string operator()(const SwiGluOp& op) const {
    std::string line = fmt::format("{} = swiglu %{}", show(graph, op.out), op.gate_up);
    if (op.hadamard != 0) line += fmt::format(" hadamard {}", op.hadamard);
    return line;
  }
  std::string operator()(const SelectRowsOp& op) const {
    return fmt::format("{} = select_rows %{}", show(graph, op.out), op.in);
  }
};

}  // namespace

std::string dump(const Graph& graph) {
  std::string text;
  for (const Op& op : graph.ops) text += std::visit(Line{graph}, op) + "\n";
  return text;
}

}  // namespace qllm
