#include "graph/cut.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>

#include "graph/builder.h"
#include "graph/liveness.h"
#include "model/llama.h"
#include "support/errors.h"

namespace {

using namespace qllm;
using test::check_error;

ModelConfig config(int64_t layers, bool tied = true) {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 300;
  c.d_model = 64;
  c.d_ff = 128;
  c.n_layers = layers;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 16;
  c.rotary_dim = 16;
  c.context_length = 128;
  c.tied_lm_head = tied;
  return c;
}

std::multiset<std::string> weight_names(const Graph& graph) {
  std::multiset<std::string> names;
  for (const Weight& w : graph.weights) names.insert(w.name);
  return names;
}

/// Every value is made once, before it is read, and every weight is used.
void check_sound(const Graph& graph) {
  std::set<ValueId> made;
  for (const Op& op : graph.ops) {
    for (const ValueId in : inputs_of(op)) CHECK(made.count(in) == 1);
    CHECK(made.insert(output_of(op)).second);
  }
  CHECK(made.size() == graph.values.size());
  CHECK(made.count(graph.logits) == 1);
}

}  // namespace

TEST_CASE("cut: both parts, op by op") {
  const CutGraph parts = cut(build_llama(config(2)), 1);
  const std::string first = R"(%0 [tokens, 64] = embed token_embd.weight [300, 64]
%1 [tokens, 64] = rms_norm %0 blk.0.attn_norm.weight [1, 64] eps 1e-05
%2 [tokens, 128] = linear %1 blk.0.attn_qkv [128, 64]
%3 [tokens, 64] = rope_kv_write %2 layer 0 heads 4/2 x 16 adjacent rotary 16
%4 [tokens, 64] = attention %3 layer 0 scale 0.25
%5 [tokens, 64] = linear %4 blk.0.attn_output.weight [64, 64] + %0
%6 [tokens, 64] = rms_norm %5 blk.0.ffn_norm.weight [1, 64] eps 1e-05
%7 [tokens, 256] = linear %6 blk.0.ffn_gate_up [256, 64]
%8 [tokens, 128] = swiglu %7
%9 [tokens, 64] = linear %8 blk.0.ffn_down.weight [64, 128] + %5
)";
  const std::string second = R"(%0 [tokens, 64] = input
%1 [tokens, 64] = rms_norm %0 blk.1.attn_norm.weight [1, 64] eps 1e-05
%2 [tokens, 128] = linear %1 blk.1.attn_qkv [128, 64]
%3 [tokens, 64] = rope_kv_write %2 layer 0 heads 4/2 x 16 adjacent rotary 16
%4 [tokens, 64] = attention %3 layer 0 scale 0.25
%5 [tokens, 64] = linear %4 blk.1.attn_output.weight [64, 64] + %0
%6 [tokens, 64] = rms_norm %5 blk.1.ffn_norm.weight [1, 64] eps 1e-05
%7 [tokens, 256] = linear %6 blk.1.ffn_gate_up [256, 64]
%8 [tokens, 128] = swiglu %7
%9 [tokens, 64] = linear %8 blk.1.ffn_down.weight [64, 128] + %5
%10 [outputs, 64] = select_rows %9
%11 [outputs, 64] = rms_norm %10 output_norm.weight [1, 64] eps 1e-05
%12 [outputs, 300] = linear %11 lm_head [300, 64]
)";
  CHECK(dump(parts.first) == first);
  CHECK(dump(parts.second) == second);
  CHECK(parts.first.logits == 9);
  CHECK(parts.second.logits == 12);
  CHECK(parts.second.weights.back().lm_head);
}

TEST_CASE("cut: wherever it is made, nothing is lost and nothing is twice") {
  for (const bool tied : {true, false}) {
    for (const Rotations& rotations : {Rotations{}, Rotations{true, true, true}}) {
      const Graph whole = build_llama(config(5, tied), rotations);
      CHECK(layer_count(whole) == 5);
      for (int32_t layer = 1; layer < 5; ++layer) {
        CAPTURE(layer);
        const CutGraph parts = cut(whole, layer);
        check_sound(parts.first);
        check_sound(parts.second);
        CHECK(layer_count(parts.first) == layer);
        CHECK(layer_count(parts.second) == 5 - layer);
        CHECK(parts.first.ops.size() + parts.second.ops.size() == whole.ops.size() + 1);
        auto names = weight_names(parts.first);
        names.merge(weight_names(parts.second));
        CHECK(names == weight_names(whole));
        const Value& result = parts.first.value(parts.first.logits);
        const Value& input = parts.second.value(output_of(parts.second.ops.front()));
        CHECK(result.name == input.name);
        CHECK(result.rows == Rows::tokens);
        CHECK(result.width == 64);
      }
    }
  }
}

TEST_CASE("cut: a part can be cut again") {
  const Graph whole = build_llama(config(4));
  const CutGraph halves = cut(whole, 1);
  const CutGraph quarters = cut(halves.second, 2);
  CHECK(dump(quarters.first).find("blk.2.") != std::string::npos);
  CHECK(dump(quarters.second).find("blk.3.") != std::string::npos);
  CHECK(dump(quarters.second) == dump(cut(whole, 3).second));
}

TEST_CASE("cut: a part of no layers, or more than one value across, is refused") {
  const Graph graph = build_llama(config(2));
  for (const int32_t layer : {-1, 0, 2, 3}) {
    check_error(ErrorCode::invalid_argument, "expected 1 to 1", [&] { cut(graph, layer); });
  }
  // The second layer's sum reads the embedding too.
  Graph crossed = graph;
  const auto embedded = output_of(crossed.ops.front());
  auto& last = std::get<LinearOp>(crossed.ops[crossed.ops.size() - 4]);
  REQUIRE(last.residual != kNone);
  last.residual = embedded;
  check_error(ErrorCode::unsupported, "at least 2 values cross (blk.0.", [&] { cut(crossed, 1); });
  // Layers that do not stand in order.
  Graph turned = graph;
  for (Op& op : turned.ops) {
    if (auto* rope = std::get_if<RopeKvWriteOp>(&op)) rope->layer = 1 - rope->layer;
    if (auto* attention = std::get_if<AttentionOp>(&op)) attention->layer = 1 - attention->layer;
  }
  check_error(ErrorCode::unsupported, "do not follow each other", [&] { cut(turned, 1); });
}
