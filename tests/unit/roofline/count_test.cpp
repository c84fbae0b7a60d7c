// Counts against a second count, made here from tensor sizes: layer by layer, token by token and
// position by position, without the closed formulas of lib/roofline.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <string>

#include "model/config.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "model/weight_bytes.h"
#include "qllm/roofline.hpp"
#include "support/errors.h"

using namespace qllm;
using namespace qllm::roofline;
using qllm::test::check_error;

namespace {

struct Sums {
  int64_t weights = 0, kv = 0, activations = 0, operations = 0;
};
using Tally = std::map<std::string, Sums>;

Shape dense_shape() {  // as many KV heads as heads; no width is a multiple of 64
  return {.name = "dense",
          .vocab = 301,
          .d_model = 90,
          .d_ff = 170,
          .n_layers = 3,
          .n_heads = 5,
          .n_kv_heads = 5,
          .head_dim = 18};
}

Shape gqa_shape() {
  return {.name = "gqa",
          .vocab = 512,
          .d_model = 128,
          .d_ff = 320,
          .n_layers = 2,
          .n_heads = 8,
          .n_kv_heads = 2,
          .head_dim = 32,
          .qkv_bias = true,
          .qk_norm = true,
          .sliding_window = 20};
}

Shape moe_shape() {  // one dense layer, three with six experts and a shared one
  return {.name = "moe",
          .vocab = 320,
          .d_model = 96,
          .d_ff = 200,
          .n_layers = 4,
          .n_heads = 6,
          .n_kv_heads = 3,
          .head_dim = 16,
          .n_moe_layers = 3,
          .n_experts = 6,
          .n_experts_used = 2,
          .d_ff_expert = 80,
          .d_ff_shared = 144};
}

int64_t up_to(int64_t value, int64_t multiple) {
  while (value % multiple != 0) ++value;
  return value;
}

/// What one scheme makes of a matrix and of a token's activations, written out anew.
struct Stored {
  std::string name;
  int bits = 8;
  int group = 0;        // 0: per row
  int scale_bytes = 0;  // of a group and row
  bool is_float = false;

  int64_t matrix(int64_t rows, int64_t k) const {
    if (is_float) return rows * k * bits / 8;
    if (group == 0) return rows * (up_to(k, 64) + 4 + 4);  // codes, scale, sum
    const int64_t groups = up_to(k, std::max(64, group)) / group;
    return rows * groups * (group * bits / 8 + scale_bytes);
  }
  int64_t token(int64_t k) const {
    if (is_float) return k * bits / 8;
    if (group == 0) return up_to(k, 64) + 4;
    const int64_t padded = up_to(k, std::max(64, group));
    return padded + padded / group * 4;
  }
  int64_t rows(int64_t n) const { return is_float ? n : up_to(n, 64); }
  int64_t quant_ops() const { return is_float ? 1 : 3; }
};

const Stored kInt8{"int8"};
const Stored kSchemes[] = {kInt8,
                           {"int4-g32", 4, 32, 4},
                           {"int4-g128-sym", 4, 128, 2},
                           {"fp16", 16, 0, 0, true},
                           {"fp32", 32, 0, 0, true}};

class Count {
 public:
  Count(const Shape& shape, const Workload& work, const Stored& scheme)
      : s_(shape), w_(work), f_(scheme), head_(scheme.is_float ? scheme : kInt8) {
    const bool decodes = work.phase == Phase::decode;
    for (int64_t b = 0; b < work.batch; ++b) {
      const int64_t first = decodes ? work.context - 1 - work.draft : 0;
      for (int64_t p = first; p < work.context; ++p) positions_.push_back(p);
    }
    tokens_ = static_cast<int64_t>(positions_.size());
    outputs_ = decodes ? tokens_ : work.batch;
  }

  Tally run() {
    t_["embedding"].weights = t_["embedding"].activations = tokens_ * s_.d_model * 4;
    for (int64_t layer = 0; layer < s_.n_layers; ++layer) {
      norm(tokens_);
      attention();
      norm(tokens_);
      quantize(tokens_, s_.d_model, f_);
      if (layer < s_.n_layers - s_.n_moe_layers) {
        ffn("", s_.d_ff);
      } else {
        experts();
        if (s_.d_ff_shared > 0) ffn("shared_", s_.d_ff_shared);
      }
    }
    norm(outputs_);
    quantize(outputs_, s_.d_model, head_);
    Sums& head = t_["lm_head"];
    head.weights = head_.matrix(head_.rows(s_.vocab), s_.d_model);
    head.activations = outputs_ * (head_.token(s_.d_model) + s_.vocab * 4);
    head.operations = outputs_ * s_.vocab * s_.d_model * 2;
    return t_;
  }

 private:
  void norm(int64_t tokens) {
    t_["norm"].weights += s_.d_model * 4;
    t_["norm"].activations += tokens * s_.d_model * 4;
    t_["norm"].operations += tokens * s_.d_model * 4;
  }
  void quantize(int64_t tokens, int64_t k, const Stored& f) {
    t_["quantize"].activations += tokens * f.token(k);
    t_["quantize"].operations += tokens * k * f_.quant_ops();
  }
  void matrix(const std::string& name, int64_t rows, int64_t n, int64_t k, int64_t in,
              int64_t out) {
    t_[name].weights += f_.matrix(rows, k);
    t_[name].activations += tokens_ * (in + out);
    t_[name].operations += tokens_ * n * k * 2;
  }

  void attention() {
    const int64_t q = s_.n_heads * s_.head_dim;
    const int64_t kv = s_.n_kv_heads * s_.head_dim;
    const int64_t in = f_.token(s_.d_model);
    quantize(tokens_, s_.d_model, f_);
    matrix("q", q, q, s_.d_model, in, q * 4);
    matrix("k", kv, kv, s_.d_model, 0, 0);
    matrix("v", f_.rows(q + kv + kv) - q - kv, kv, s_.d_model, 0, 0);
    if (!f_.is_float && f_.group == 0) {  // V's blocks of 64 rows twice
      int64_t second = 0;
      for (int64_t row = 0; row < q + kv + kv; row += 64) {
        if (row + 64 > q + kv) second += 64;
      }
      t_["v"].weights += f_.matrix(second, s_.d_model);
      t_["v"].operations += tokens_ * kv * s_.d_model * 2;
    }
    if (s_.qkv_bias) {
      t_["q"].weights += q * 4;
      t_["k"].weights += kv * 4;
      t_["v"].weights += kv * 4;
    }
    if (s_.qk_norm) {
      t_["norm"].weights += 2 * s_.head_dim * 4;
      t_["norm"].operations += tokens_ * (q + kv) * 4;
    }
    t_["rope"].operations += tokens_ * (q + kv) * 3;
    const int64_t vector =
        w_.kv == "int8" ? up_to(s_.head_dim, 16) + 4 : 2 * up_to(s_.head_dim, 16);
    t_["kv_write"].kv += tokens_ * s_.n_kv_heads * 2 * vector;
    t_["kv_write"].operations += tokens_ * 2 * kv * (w_.kv == "int8" ? 3 : 1);
    t_["qk"].activations += tokens_ * q * 4;
    for (const int64_t p : positions_) {
      for (int64_t j = 0; j <= p; ++j) {
        if (s_.sliding_window > 0 && p - j >= s_.sliding_window) continue;
        t_["qk"].operations += s_.n_heads * s_.head_dim * 2;
        t_["av"].operations += s_.n_heads * s_.head_dim * 2;
        t_["softmax"].operations += s_.n_heads * 5;
      }
    }
    for (int64_t b = 0; b < w_.batch; ++b) {
      for (int64_t j = 0; j < w_.context; ++j) {
        if (!anyone_sees(j)) continue;
        t_["qk"].kv += s_.n_kv_heads * vector;
        t_["av"].kv += s_.n_kv_heads * vector;
      }
    }
    quantize(tokens_, q, f_);
    matrix("o", f_.rows(s_.d_model), s_.d_model, q, f_.token(q), s_.d_model * 8);
  }

  bool anyone_sees(int64_t j) const {
    for (const int64_t p : positions_) {
      if (j <= p && (s_.sliding_window == 0 || p - j < s_.sliding_window)) return true;
    }
    return false;
  }

  void ffn(const std::string& prefix, int64_t d_ff) {
    matrix(prefix + "gate", f_.rows(d_ff), d_ff, s_.d_model, f_.token(s_.d_model), 0);
    matrix(prefix + "up", f_.rows(d_ff), d_ff, s_.d_model, 0, 0);
    t_[prefix + "swiglu"].operations += tokens_ * d_ff * 5;
    quantize(tokens_, d_ff, f_);
    matrix(prefix + "down", f_.rows(s_.d_model), s_.d_model, d_ff, f_.token(d_ff), s_.d_model * 8);
  }

  void experts() {
    t_["router"].weights += s_.n_experts * s_.d_model * 4;
    t_["router"].activations += tokens_ * (f_.token(s_.d_model) + s_.n_experts * 4);
    t_["router"].operations += tokens_ * s_.n_experts * s_.d_model * 2;
    const int64_t d_ff = s_.d_ff_expert;
    for (int64_t t = 0; t < tokens_; ++t) {
      for (int64_t e = 0; e < s_.n_experts_used; ++e) {
        quantize(1, d_ff, f_);
        t_["expert_gate"].activations += f_.token(s_.d_model);
        t_["expert_gate"].operations += d_ff * s_.d_model * 2;
        t_["expert_up"].operations += d_ff * s_.d_model * 2;
        t_["expert_swiglu"].operations += d_ff * 5;
        t_["expert_down"].activations += f_.token(d_ff);
        t_["expert_down"].operations += d_ff * s_.d_model * 2;
      }
      t_["expert_down"].activations += s_.d_model * 8;
    }
    // An expert stays untouched if every token passes it over; the last layer rounds the sum.
    double untouched = 1;
    for (int64_t t = 0; t < tokens_; ++t) {
      untouched *=
          static_cast<double>(s_.n_experts - s_.n_experts_used) / static_cast<double>(s_.n_experts);
    }
    const double expected = (1 - untouched) * static_cast<double>(s_.n_experts * s_.n_moe_layers);
    const auto all = [&](int64_t rows, int64_t k) {
      return std::llround(expected * static_cast<double>(f_.matrix(rows, k)));
    };
    t_["expert_gate"].weights = all(f_.rows(d_ff), s_.d_model);
    t_["expert_up"].weights = all(f_.rows(d_ff), s_.d_model);
    t_["expert_down"].weights = all(f_.rows(s_.d_model), d_ff);
  }

  const Shape& s_;
  const Workload& w_;
  const Stored& f_;
  Stored head_;  // the LM head stays at 8 bits
  std::vector<int64_t> positions_;
  int64_t tokens_ = 0;
  int64_t outputs_ = 0;
  Tally t_;
};

void compare(const Shape& shape, const Workload& work, const Stored& scheme) {
  CAPTURE(shape.name);
  CAPTURE(scheme.name);
  CAPTURE(to_string(work.phase));
  CAPTURE(work.batch);
  CAPTURE(work.context);
  CAPTURE(work.draft);
  Tally expected = Count(shape, work, scheme).run();
  const std::vector<OpCost> ops = count_ops(shape, work);
  CHECK(ops.size() == expected.size());
  for (const OpCost& op : ops) {
    CAPTURE(op.name);
    REQUIRE(expected.count(op.name) == 1);
    const Sums& sums = expected[op.name];
    CHECK(op.weight_bytes == sums.weights);
    CHECK(op.kv_bytes == sums.kv);
    CHECK(op.activation_bytes == sums.activations);
    CHECK(op.operations == sums.operations);
  }
}

const OpCost& named(const std::vector<OpCost>& ops, const std::string& name) {
  for (const OpCost& op : ops) {
    if (op.name == name) return op;
  }
  FAIL(name);
  return ops.front();
}

ModelConfig config_of(const Shape& s) {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = s.vocab;
  c.d_model = s.d_model;
  c.d_ff = s.d_ff;
  c.n_layers = s.n_layers;
  c.n_heads = s.n_heads;
  c.n_kv_heads = s.n_kv_heads;
  c.head_dim = c.rotary_dim = s.head_dim;
  c.context_length = 4096;
  return c;
}

}  // namespace

TEST_CASE("roofline counts: equal a count from tensor sizes (dense, GQA, MoE)") {
  for (const Shape& shape : {dense_shape(), gqa_shape(), moe_shape()}) {
    for (const Stored& scheme : kSchemes) {
      for (const int64_t batch : {1, 4, 16}) {
        for (const int64_t context : {1, 17, 64}) {
          for (const char* kv : {"bf16", "int8"}) {
            Workload work{Phase::decode, batch, context, scheme.name, kv, 0};
            compare(shape, work, scheme);
            work.phase = Phase::prefill;
            compare(shape, work, scheme);
          }
        }
      }
    }
  }
}

TEST_CASE("roofline counts: a step that checks guessed tokens") {
  for (const Shape& shape : {dense_shape(), gqa_shape(), moe_shape()}) {
    for (const int64_t context : {5, 19, 23, 64}) {
      compare(shape, {Phase::decode, 3, context, "int8", "bf16", 4}, kInt8);
    }
  }
}

TEST_CASE("roofline counts: weights are what the graph of the model packs") {
  for (const Shape& s : {dense_shape(), preset("bench-1b"), preset("llama-8b")}) {
    for (const char* scheme : {"int8", "int4-g32", "int4-g64-sym", "int4-g128"}) {
      CAPTURE(s.name);
      CAPTURE(scheme);
      const Graph graph = build_llama(config_of(s));
      const SyntheticSource source(graph, 1);
      const WeightBytes packed = qllm::weight_bytes(graph, parse_scheme(scheme), source);
      int64_t sum = 0;
      for (const OpCost& op : count_ops(s, {.scheme = scheme})) sum += op.weight_bytes;
      CHECK(sum == packed.per_step);
      CHECK(roofline::weight_bytes(s, scheme) == packed.in_memory);
    }
  }
}

TEST_CASE("roofline counts: the traps") {
  const Shape shape = preset("llama-32b");
  const auto at = [&](int64_t batch) { return count_ops(shape, {.batch = batch}); };
  SUBCASE("intensity of a weight matmul grows with the batch: 2 operations per byte and token") {
    const double one = named(at(1), "gate").intensity();
    CHECK(one == doctest::Approx(2).epsilon(0.01));
    CHECK(named(at(16), "gate").intensity() == doctest::Approx(16 * one).epsilon(0.01));
  }
  SUBCASE("the FFN of all layers, not of one") {
    CHECK(ffn_parameters(shape) == int64_t{42} * 3 * 7168 * 28672);
    CHECK(named(at(1), "gate").count == 42);
  }
  SUBCASE("int8 does not halve the operations") {
    Workload half{.scheme = "fp16"};
    const std::vector<OpCost> fp16 = count_ops(shape, half);
    for (const char* name : {"q", "gate", "down", "lm_head", "qk"}) {
      CHECK(named(at(1), name).operations == named(fp16, name).operations);
    }
  }
  SUBCASE("attention reads KV heads") {
    Shape all_heads = shape;
    all_heads.n_kv_heads = all_heads.n_heads;
    const OpCost grouped = named(at(1), "qk");
    const OpCost full = named(count_ops(all_heads, {}), "qk");
    CHECK(full.kv_bytes == 7 * grouped.kv_bytes);
    CHECK(full.operations == grouped.operations);
  }
}

TEST_CASE("roofline counts: keep takes over the grids of the file") {
  Shape shape = gqa_shape();
  shape.qkv_bias = shape.qk_norm = false;
  shape.tensors = {{"blk.0.attn_q.weight", "Q4_1", {256, 128}, 0},
                   {"blk.0.ffn_gate.weight", "Q4_K", {320, 128}, 0},
                   {"blk.0.ffn_down.weight", "F16", {128, 320}, 0},
                   {"token_embd.weight", "Q8_0", {512, 128}, 0}};
  const std::vector<OpCost> ops = count_ops(shape, {.scheme = "keep"});
  CHECK(named(ops, "q").weight_bytes == 2 * 256 * 4 * (16 + 4));
  // A super-block of 256 inputs (128 padded): two f16, and for each of 8 groups two bytes and
  // codes.
  CHECK(named(ops, "gate").weight_bytes == 2 * 320 * (4 + 8 * (2 + 16)));
  CHECK(named(ops, "down").weight_bytes == 2 * 128 * 10 * (32 + 2));
  CHECK(named(ops, "lm_head").weight_bytes == 512 * 4 * (32 + 2));
  check_error(ErrorCode::unsupported, "keep",
              [] { count_ops(preset("llama-8b"), {.scheme = "keep"}); });
}

TEST_CASE("roofline counts: what is out of range is refused") {
  const Shape shape = preset("llama-70b");
  const auto refused = [&](const Workload& w) {
    check_error(ErrorCode::invalid_argument, "", [&] { count_ops(shape, w); });
  };
  refused({.batch = 0});
  refused({.batch = -1});
  refused({.batch = INT64_MAX});
  refused({.context = 0});
  refused({.context = INT64_MAX});
  refused({.phase = Phase::prefill, .draft = 1});
  refused({.context = 4, .draft = 4});
  refused({.scheme = "int3"});
  refused({.kv = "int4"});
  refused({.phase = Phase::prefill, .batch = 1 << 20, .context = 1 << 30});  // beyond 63 bits
}
