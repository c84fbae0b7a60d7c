#include <string_view>

#include "graph/graph.h"

namespace qllm {
namespace {

struct Kind {
  const char* operator()(const InputOp&) const { return "input"; }
  const char* operator()(const EmbedOp&) const { return "embed"; }
  const char* operator()(const RmsNormOp&) const { return "rms_norm"; }
  const char* operator()(const LinearOp&) const { return "linear"; }
  const char* operator()(const RopeKvWriteOp&) const { return "rope_kv_write"; }
  const char* operator()(const AttentionOp&) const { return "attention"; }
  const char* operator()(const SwiGluOp&) const { return "swiglu"; }
  const char* operator()(const SelectRowsOp&) const { return "select_rows"; }
};

std::string_view without(std::string_view name, std::string_view end) {
  if (name.ends_with(end)) name.remove_suffix(end.size());
  return name;
}

/// A weight, or the value that a linear or a norm makes with it.
std::string stem(std::string_view name) {
  return std::string(without(without(name, ".out"), ".weight"));
}

/// In the layer of a value by name: a part of a graph counts its layers anew.
std::string beside(const std::string& value, const char* what) {
  const std::string name = stem(value);
  return name.substr(0, name.rfind('.') + 1) + what;
}

struct Label {
  const Graph& graph;

  std::string operator()(const InputOp&) const { return "input"; }
  std::string operator()(const EmbedOp& op) const { return stem(graph.weight(op.table).name); }
  std::string operator()(const RmsNormOp& op) const { return stem(graph.value(op.out).name); }
  std::string operator()(const LinearOp& op) const { return stem(graph.weight(op.weight).name); }
  std::string operator()(const RopeKvWriteOp& op) const {
    return beside(graph.value(op.q).name, "rope_kv_write");
  }
  std::string operator()(const AttentionOp& op) const {
    return beside(graph.value(op.out).name, "attention");
  }
  std::string operator()(const SwiGluOp& op) const {
    return beside(graph.value(op.gate_up).name, "swiglu");
  }
  std::string operator()(const SelectRowsOp&) const { return "select_rows"; }
};

}  // namespace

const char* op_kind(const Op& op) { return std::visit(Kind{}, op); }

std::vector<std::string> op_labels(const Graph& graph) {
  std::vector<std::string> labels;
  for (const Op& op : graph.ops) labels.push_back(std::visit(Label{graph}, op));
  return labels;
}

}  // namespace qllm
