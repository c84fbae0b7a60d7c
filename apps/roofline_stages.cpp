#include "roofline_stages.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace qllm::app {
namespace {

/// Kinds of stages that are no linear, and the ends of labels of those that are one.
constexpr std::pair<std::string_view, std::string_view> kKinds[] = {
    {"embed", "embedding"},    {"rms_norm", "norm"},      {"quantize", "norm"},
    {"select_rows", "norm"},   {"rope_kv_write", "rope"}, {"rope_table", "rope"},
    {"attention", "attention"}};
constexpr std::pair<std::string_view, std::string_view> kLinears[] = {
    {"attn_qkv", "qkv"},       {"attn_output", "o"},
    {"ffn_gate_up", "ffn_in"}, {"ffn_gate_up+swiglu", "ffn_in"},
    {"ffn_down", "ffn_out"},   {"lm_head", "lm_head"}};

size_t index_of(std::string_view name) {
  const auto& stages = roofline_stages();
  const auto found = std::find_if(stages.begin(), stages.end(),
                                  [&](const RooflineStage& s) { return s.name == name; });
  return static_cast<size_t>(
      std::min(found - stages.begin(), static_cast<std::ptrdiff_t>(stages.size()) - 1));
}

/// What stands behind "blk.3."; the label of an op that is in no layer as it is.
std::string_view in_layer(std::string_view label) {
  if (!label.starts_with("blk.")) return label;
  const size_t dot = label.find('.', 4);
  return dot == std::string_view::npos ? label : label.substr(dot + 1);
}

template <typename Table>
std::string_view find(const Table& table, std::string_view key) {
  for (const auto& [name, stage] : table) {
    if (name == key) return stage;
  }
  return "rest";
}

}  // namespace

const std::vector<RooflineStage>& roofline_stages() {
  static const std::vector<RooflineStage> kStages = {
      {"embedding", "embedding gather", {"embedding"}},
      {"norm", "norms, quantization", {"norm", "quantize"}},
      {"qkv", "Q, K, V", {"q", "k", "v"}},
      {"rope", "positions, KV write", {"rope", "kv_write"}},
      {"attention", "QK^T, softmax, AV", {"qk", "softmax", "av"}},
      {"o", "O", {"o"}},
      {"ffn_in", "gate, up, SwiGLU", {"gate", "up", "swiglu"}},
      {"ffn_out", "down", {"down"}},
      {"experts",
       "router, experts",
       {"router", "expert_gate", "expert_up", "expert_swiglu", "expert_down", "shared_gate",
        "shared_up", "shared_swiglu", "shared_down"}},
      {"lm_head", "LM head", {"lm_head"}},
      {"rest", "between them", {}},
  };
  return kStages;
}

size_t stage_of_op(const std::string& name) {
  const auto& stages = roofline_stages();
  for (size_t i = 0; i < stages.size(); ++i) {
    const auto& ops = stages[i].ops;
    if (std::find(ops.begin(), ops.end(), name) != ops.end()) return i;
  }
  return stages.size() - 1;
}

size_t stage_of_timer(const std::string& label, const std::string& kind) {
  const bool is_linear = kind.starts_with("linear");
  return index_of(is_linear ? find(kLinears, in_layer(label)) : find(kKinds, kind));
}

}  // namespace qllm::app
