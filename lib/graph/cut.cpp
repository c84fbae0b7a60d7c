#include "graph/cut.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "core/error.h"
#include "graph/liveness.h"

namespace qllm {
namespace {

/// The layer whose keys and values an op writes or reads, or kNone.
int32_t layer_of(const Op& op) {
  if (const auto* rope = std::get_if<RopeKvWriteOp>(&op)) return rope->layer;
  if (const auto* attention = std::get_if<AttentionOp>(&op)) return attention->layer;
  return kNone;
}

/// What ops from `at` on read of what those before it made, in order.
std::vector<ValueId> crossing_values(const Graph& graph, size_t at) {
  std::vector<bool> made(graph.values.size(), false);
  for (size_t i = 0; i < at; ++i) made[static_cast<size_t>(output_of(graph.ops[i]))] = true;
  std::vector<ValueId> crossing;
  const auto add = [&](ValueId id) {
    if (!made[static_cast<size_t>(id)]) return;
    if (std::find(crossing.begin(), crossing.end(), id) == crossing.end()) crossing.push_back(id);
  };
  for (size_t i = at; i < graph.ops.size(); ++i) {
    for (const ValueId id : inputs_of(graph.ops[i])) add(id);
  }
  add(graph.logits);
  return crossing;
}

std::string names(const Graph& graph, std::span<const ValueId> ids) {
  std::string text;
  for (const ValueId id : ids) text += (text.empty() ? "" : ", ") + graph.value(id).name;
  return text;
}

/// The last place between two layers where one value crosses: behind all that the first of them
/// does, since its own residual sums are such places too.
size_t place_between(const Graph& graph, int32_t layer) {
  size_t first = graph.ops.size();  // the first op of the layer
  size_t before = 0;                // behind the last of the one before it
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (layer_of(graph.ops[i]) == layer) first = std::min(first, i);
    if (layer_of(graph.ops[i]) == layer - 1) before = i + 1;
  }
  require(before > 0 && before <= first && first < graph.ops.size(), ErrorCode::unsupported,
          "graph: layers {} and {} do not follow each other: it cannot be cut there", layer - 1,
          layer);
  std::vector<ValueId> fewest;
  for (size_t place = first + 1; place-- > before;) {
    std::vector<ValueId> crossing = crossing_values(graph, place);
    if (crossing.size() == 1 && graph.value(crossing.front()).rows == Rows::tokens) return place;
    if (fewest.empty() || crossing.size() < fewest.size()) fewest = std::move(crossing);
  }
  fail(ErrorCode::unsupported,
       "graph: between layers {} and {} at least {} values cross ({}), expected one", layer - 1,
       layer, fewest.size(), names(graph, fewest));
}

/// Builds one part out of ops of the whole, numbering values, weights and layers anew.
class PartBuilder {
 public:
  PartBuilder(const Graph& whole, int32_t first_layer)
      : whole_(whole),
        first_layer_(first_layer),
        value_of_(whole.values.size(), kNone),
        weight_of_(whole.weights.size(), kNone) {}

  void input(ValueId crossing) { part_.ops.emplace_back(InputOp{value(crossing)}); }

  void add(Op op) {
    std::visit([this](auto& o) { renumber(o); }, op);
    part_.ops.push_back(std::move(op));
  }

  Graph finish(ValueId result) {
    part_.logits = value(result);
    return std::move(part_);
  }

 private:
  ValueId value(ValueId id) { return moved(id, whole_.values, &value_of_, &part_.values); }
  WeightId weight(WeightId id) { return moved(id, whole_.weights, &weight_of_, &part_.weights); }

  /// The number that `id` has in the part; it is taken over when it is first met.
  template <typename T>
  static int32_t moved(int32_t id, const std::vector<T>& from, std::vector<int32_t>* known,
                       std::vector<T>* to) {
    if (id == kNone) return kNone;
    int32_t& number = (*known)[static_cast<size_t>(id)];
    if (number == kNone) {
      number = static_cast<int32_t>(to->size());
      to->push_back(from[static_cast<size_t>(id)]);
    }
    return number;
  }

  void renumber(InputOp& op) { op.out = value(op.out); }
  void renumber(EmbedOp& op) {
    op.table = weight(op.table);
    op.out = value(op.out);
  }
  void renumber(RmsNormOp& op) {
    op.in = value(op.in);
    op.gain = weight(op.gain);
    op.out = value(op.out);
  }
  void renumber(LinearOp& op) {
    op.in = value(op.in);
    op.weight = weight(op.weight);
    op.bias = weight(op.bias);
    op.residual = value(op.residual);
    op.out = value(op.out);
  }
  void renumber(RopeKvWriteOp& op) {
    op.qkv = value(op.qkv);
    op.q = value(op.q);
    op.layer -= first_layer_;
  }
  void renumber(AttentionOp& op) {
    op.q = value(op.q);
    op.out = value(op.out);
    op.layer -= first_layer_;
  }
  void renumber(SwiGluOp& op) {
    op.gate_up = value(op.gate_up);
    op.out = value(op.out);
  }
  void renumber(SelectRowsOp& op) {
    op.in = value(op.in);
    op.out = value(op.out);
  }

  const Graph& whole_;
  int32_t first_layer_;
  std::vector<int32_t> value_of_;   // by ValueId of the whole
  std::vector<int32_t> weight_of_;  // likewise
  Graph part_;
};

}  // namespace

int32_t layer_count(const Graph& graph) {
  int32_t count = 0;
  for (const Op& op : graph.ops) count = std::max(count, layer_of(op) + 1);
  return count;
}

CutGraph cut(const Graph& graph, int32_t layer) {
  const int32_t layers = layer_count(graph);
  require(layer > 0 && layer < layers, ErrorCode::invalid_argument,
          "graph: a cut before layer {} of {}, expected 1 to {}", layer, layers, layers - 1);
  const size_t place = place_between(graph, layer);
  const ValueId crossing = crossing_values(graph, place).front();
  PartBuilder first(graph, 0);
  for (size_t i = 0; i < place; ++i) first.add(graph.ops[i]);
  PartBuilder second(graph, layer);
  second.input(crossing);
  for (size_t i = place; i < graph.ops.size(); ++i) second.add(graph.ops[i]);
  return {first.finish(crossing), second.finish(graph.logits)};
}

}  // namespace qllm
