#include "fusion.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <variant>
#include <vector>

#include "graph/builder.h"
#include "model/llama.h"

namespace {

qllm::Graph llama_graph(int64_t head_dim) {
  qllm::ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 300;
  c.d_model = 2 * head_dim;
  c.d_ff = 96;
  c.n_layers = 2;
  c.n_heads = 2;
  c.n_kv_heads = 1;
  c.head_dim = head_dim;
  c.rotary_dim = head_dim;
  c.context_length = 64;
  c.tied_lm_head = true;
  return qllm::build_llama(c);
}

int64_t unit_of(const qllm::Graph& graph, const std::string& weight) {
  const std::vector<int64_t> units = qllm::cpu::shard_units(graph);
  for (size_t i = 0; i < units.size(); ++i) {
    if (graph.weights[i].name == weight) return units[i];
  }
  return -1;
}

}  // namespace

TEST_CASE("fusion: gate/up with SwiGLU, QKV with RoPE, a norm with its linear") {
  const qllm::Graph graph = llama_graph(64);
  const qllm::cpu::Fusion fusion = qllm::cpu::find_fusion(graph);
  int swiglus = 0;
  int ropes = 0;
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (!fusion.has_follower(i)) continue;
    REQUIRE(std::holds_alternative<qllm::LinearOp>(graph.ops[i]));
    const bool swiglu = std::holds_alternative<qllm::SwiGluOp>(graph.ops[i + 1]);
    const bool rope = std::holds_alternative<qllm::RopeKvWriteOp>(graph.ops[i + 1]);
    CHECK((swiglu || rope));
    swiglus += swiglu ? 1 : 0;
    ropes += rope ? 1 : 0;
    CHECK(fusion.stages.of_op[i] == fusion.stages.of_op[i + 1]);
    CHECK(fusion.stages.of_op[i] == fusion.stages.of_op[i - 1]);  // the norm in front
    CHECK(fusion.stages.unstored[static_cast<size_t>(qllm::output_of(graph.ops[i]))] == swiglu);
  }
  CHECK(swiglus == 2);
  CHECK(ropes == 2);
  // embed | [norm qkv rope] [attend] [out] [norm gate_up swiglu] [down] a layer | select | norm
  // head
  CHECK(fusion.stages.of_op.back() == 2 * 5 + 2);
}

TEST_CASE("fusion: a gate/up that somebody else reads as well is stored") {
  qllm::GraphBuilder b;
  const auto x = b.embed(b.embedding_weight("table", 10, 64));
  const auto gate_up = b.linear(x, b.linear_weight("w", 128, 64, {}));
  const auto h = b.swiglu(gate_up, 64);
  const auto sum = b.linear(h, b.linear_weight("v", 128, 64, {}), qllm::kNone, gate_up);
  const qllm::Graph graph = b.finish(b.select_rows(sum));
  const qllm::cpu::Fusion fusion = qllm::cpu::find_fusion(graph);
  for (size_t i = 0; i < graph.ops.size(); ++i) CHECK(!fusion.has_follower(i));
  CHECK(unit_of(graph, "w") == 64);
}

TEST_CASE("fusion: shards end on pairs of gate and up and on heads") {
  for (int64_t head_dim : {16, 64, 128, 192}) {
    const qllm::Graph graph = llama_graph(head_dim);
    CHECK(unit_of(graph, "blk.0.attn_qkv") == std::max<int64_t>(64, head_dim));
    CHECK(unit_of(graph, "blk.0.ffn_gate_up") == 128);
    CHECK(unit_of(graph, "lm_head") == 64);
  }
  const qllm::Graph graph = llama_graph(24);  // no whole number of heads in a block: not fused
  CHECK(unit_of(graph, "blk.0.attn_qkv") == 64);
  for (size_t i = 0; i + 1 < graph.ops.size(); ++i) {
    if (std::holds_alternative<qllm::RopeKvWriteOp>(graph.ops[i + 1])) {
      CHECK(!qllm::cpu::find_fusion(graph).has_follower(i));
    }
  }
}

TEST_CASE("fusion: what is made in a stage lies apart from all that is read there") {
  const qllm::Graph graph = llama_graph(64);
  const qllm::Stages stages = qllm::cpu::find_fusion(graph).stages;
  const qllm::BufferPlan plan = qllm::plan_buffers(graph, stages);
  auto buffer_of = [&](qllm::ValueId v) { return plan.buffer_of[static_cast<size_t>(v)]; };
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const qllm::ValueId out = qllm::output_of(graph.ops[i]);
    if (stages.unstored[static_cast<size_t>(out)]) {
      CHECK(buffer_of(out) == qllm::kNone);
      continue;
    }
    for (size_t j = 0; j < graph.ops.size(); ++j) {
      if (stages.of_op[j] != stages.of_op[i]) continue;
      for (qllm::ValueId in : qllm::inputs_of(graph.ops[j])) {
        if (in != out) CHECK(buffer_of(in) != buffer_of(out));
      }
      const qllm::ValueId other = qllm::output_of(graph.ops[j]);
      if (other != out) CHECK(buffer_of(other) != buffer_of(out));
    }
  }
}
