#include <doctest/doctest.h>

#include <algorithm>

#include "core/error.h"
#include "graph/builder.h"
#include "graph/liveness.h"
#include "model/llama.h"

namespace {

qllm::ModelConfig small_config() {
  qllm::ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 300;
  c.d_model = 64;
  c.d_ff = 96;
  c.n_layers = 2;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 16;
  c.rotary_dim = 16;
  c.context_length = 128;
  c.tied_lm_head = true;
  return c;
}

}  // namespace

TEST_CASE("graph: a shape that does not fit is refused with both sides") {
  qllm::GraphBuilder b;
  const auto x = b.embed(b.embedding_weight("table", 10, 64));
  const auto w = b.linear_weight("w", 32, 63, {});
  try {
    b.linear(x, w);
    FAIL("a linear of 63 inputs took 64");
  } catch (const qllm::Error& e) {
    CHECK(e.code() == qllm::ErrorCode::bad_format);
    CHECK(std::string(e.what()).find("64 wide, expected 63") != std::string::npos);
  }
  CHECK_THROWS_AS(b.linear_weight("v", 8, 8, {{"t", 0, 4, 5}}), qllm::Error);
  CHECK_THROWS_AS(b.finish(x), qllm::Error);  // token rows are no logits
}

TEST_CASE("llama: the graph reads as the architecture does") {
  const qllm::Graph graph = qllm::build_llama(small_config());
  // embed, per layer 9 ops, select rows, norm, head
  CHECK(graph.ops.size() == 1 + 2 * 9 + 3);
  CHECK(graph.value(graph.logits).width == 300);
  CHECK(graph.value(graph.logits).rows == qllm::Rows::outputs);
  const std::string text = qllm::dump(graph);
  CHECK(text.find("blk.1.attn_qkv [128, 64]") != std::string::npos);
  CHECK(text.find("blk.0.ffn_gate_up [256, 64]") != std::string::npos);
  CHECK(text.find("lm_head [300, 64]") != std::string::npos);
}

TEST_CASE("llama: gate and up are interleaved by blocks of 64, a ragged d_ff is padded") {
  const qllm::Graph graph = qllm::build_llama(small_config());
  const auto it = std::find_if(graph.weights.begin(), graph.weights.end(),
                               [](const auto& w) { return w.name == "blk.0.ffn_gate_up"; });
  REQUIRE(it != graph.weights.end());
  REQUIRE(it->rows.size() == 4);
  CHECK(it->rows[0].tensor == "blk.0.ffn_gate.weight");
  CHECK(it->rows[1].row == 64);
  CHECK(it->rows[2].tensor_row == 64);
  CHECK(it->rows[2].row == 128);
  CHECK(it->rows[2].count == 32);
  CHECK(it->rows[3].row == 192);
}

TEST_CASE(
    "llama: with rotations norms have no gain, heads part from the table, SwiGLU turns blocks") {
  qllm::ModelConfig c = small_config();
  CHECK(qllm::llama_rotations(c) == qllm::Rotations{true, true, false});  // d_ff 96
  c.d_ff = 128;
  CHECK(qllm::llama_rotations(c) == qllm::Rotations{true, true, true});
  const qllm::Graph graph = qllm::build_llama(c, {true, true, true});
  const std::string text = qllm::dump(graph);
  CHECK(text.find("norm.weight") == std::string::npos);
  CHECK(text.find("rms_norm %0 no gain") != std::string::npos);
  CHECK(text.find("hadamard 64") != std::string::npos);
  for (const qllm::Weight& w : graph.weights) {
    if (w.name == "lm_head") CHECK(w.rows.at(0).tensor == "output.weight");
  }
  c.head_dim = 24;
  c.d_model = 257 * 64;
  CHECK(qllm::llama_rotations(c) == qllm::Rotations{false, false, true});
}

TEST_CASE("graph: Hadamard blocks must divide d_ff") {
  for (const auto& [d_ff, hadamard] : {std::pair<int64_t, int32_t>{96, 64}, {128, 32}}) {
    qllm::GraphBuilder b;
    const auto x = b.embed(b.embedding_weight("table", 10, 256));
    CHECK_THROWS_AS(b.swiglu(x, d_ff, hadamard), qllm::Error);
  }
}

TEST_CASE("liveness: no op writes over what it or a later op still reads") {
  const qllm::Graph graph = qllm::build_llama(small_config());
  const qllm::BufferPlan plan = qllm::plan_buffers(graph);
  CHECK(plan.buffers.size() < 10);  // far fewer than values
  std::vector<qllm::ValueId> holder(plan.buffers.size(), qllm::kNone);
  for (const qllm::Op& op : graph.ops) {
    for (qllm::ValueId in : qllm::inputs_of(op)) {
      CHECK(holder[static_cast<size_t>(plan.buffer_of[static_cast<size_t>(in)])] == in);
    }
    const qllm::ValueId out = qllm::output_of(op);
    const auto buffer = static_cast<size_t>(plan.buffer_of[static_cast<size_t>(out)]);
    for (qllm::ValueId in : qllm::inputs_of(op)) {
      CHECK(plan.buffer_of[static_cast<size_t>(in)] != static_cast<int32_t>(buffer));
    }
    CHECK(plan.buffers[buffer].width >= graph.value(out).width);
    holder[buffer] = out;
  }
  CHECK(holder[static_cast<size_t>(plan.buffer_of[static_cast<size_t>(graph.logits)])] ==
        graph.logits);
}
