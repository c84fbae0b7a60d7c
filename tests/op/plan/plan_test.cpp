// The cpu backend against the reference under the same scheme, on whole tiny models: int32 sums are
// equal and both round keys and values to bf16, so the two differ by float rounding only.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/error.h"
#include "kernels/dot.h"
#include "model/llama.h"
#include "model/synthetic.h"

namespace {

struct Shape {
  int64_t d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab;
};

qllm::ModelConfig config_of(const Shape& s) {
  qllm::ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = s.vocab;
  c.d_model = s.d_model;
  c.d_ff = s.d_ff;
  c.n_layers = 2;
  c.n_heads = s.n_heads;
  c.n_kv_heads = s.n_kv_heads;
  c.head_dim = s.head_dim;
  c.rotary_dim = s.head_dim;
  c.context_length = 256;
  c.tied_lm_head = true;
  return c;
}

struct Machine {
  std::unique_ptr<qllm::Backend> backend;
  std::unique_ptr<qllm::Plan> plan;
  std::unique_ptr<qllm::KvCache> kv;
  int64_t vocab = 0;

  Machine(const std::string& device, const qllm::BackendOptions& options, const Shape& shape,
          qllm::PlanLimits limits)
      : vocab(shape.vocab) {
    const qllm::ModelConfig c = config_of(shape);
    const qllm::Graph graph = qllm::build_llama(c);
    backend = qllm::make_backend(device, options);
    auto source = std::make_shared<qllm::SyntheticSource>(graph, 3);
    plan = backend->compile(graph, backend->load(graph, source, {}), limits);
    kv = backend->make_kv_cache({c.n_layers, c.n_kv_heads, c.head_dim, 128});
  }

  std::vector<float> run(const std::vector<int32_t>& ids, const std::vector<int32_t>& outputs) {
    const qllm::BatchSlice slice{kv.get(), 0, static_cast<int64_t>(ids.size())};
    std::vector<float> logits(outputs.size() * static_cast<size_t>(vocab));
    plan->execute({ids, {&slice, 1}, outputs}, logits);
    return logits;
  }
};

std::vector<int32_t> some_ids(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 37 + 11) % vocab));
  return ids;
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double diff = 0;
  double norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    diff += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(diff / norm);
}

std::vector<qllm::cpu::Isa> available_tiers() {
  std::vector<qllm::cpu::Isa> tiers;
  for (auto isa : {qllm::cpu::Isa::scalar, qllm::cpu::Isa::avx2, qllm::cpu::Isa::avxvnni,
                   qllm::cpu::Isa::avx512vnni, qllm::cpu::Isa::amx}) {
    if (qllm::cpu::isa_available(isa)) {
      tiers.push_back(isa);
    } else {
      MESSAGE("[skipped] tier " << std::string(qllm::cpu::isa_name(isa))
                                << " is not on this machine");
    }
  }
  return tiers;
}

constexpr Shape kShapes[] = {
    {64, 96, 4, 2, 16, 300},    // ragged d_ff and vocabulary
    {192, 320, 3, 1, 64, 500},  // one KV head, N not divisible by the workers
    {128, 64, 4, 4, 32, 64},    // no groups
    {72, 100, 3, 3, 24, 101},   // nothing is a multiple of 64
};

}  // namespace

TEST_CASE("cpu plan: equals the exact-integer reference on every tier") {
  // Float rounding (some 2^-22) alone moves the logits by less than 1e-5 of their norm. Where it
  // carries an activation over a rounding boundary, one int8 input changes by one step: about
  // 3 sigma / 127 of one of K >= 64 inputs, 0.003 of that token's norm, 0.0005 of that of all 40
  // tokens. About 50,000 values are quantized, each within 2^-22 * 127 of a boundary with a
  // probability of some 3e-5, so one or two such flips are to be expected: bound four.
  constexpr double kBound = 0.002;
  for (const Shape& shape : kShapes) {
    qllm::BackendOptions reference;
    reference.scheme = {qllm::SchemeKind::int8};
    reference.kv_as_bf16 = true;
    Machine oracle("reference", reference, shape, {64, 64});
    const auto ids = some_ids(40, shape.vocab);
    std::vector<int32_t> outputs;
    for (int32_t i = 0; i < 40; ++i) outputs.push_back(i);
    const auto expected = oracle.run(ids, outputs);
    for (auto isa : available_tiers()) {
      for (int threads : {1, 2, 3}) {
        qllm::BackendOptions options;
        options.isa = std::string(qllm::cpu::isa_name(isa));
        options.threads = threads;
        Machine cpu("cpu", options, shape, {64, 64});
        const double d = relative_difference(cpu.run(ids, outputs), expected);
        INFO("d_model ", shape.d_model, " isa ", options.isa, " threads ", threads);
        CHECK(d < kBound);
      }
    }
  }
}

TEST_CASE("cpu plan: prefill in chunks and token by token agree") {
  const Shape shape = kShapes[1];
  const auto ids = some_ids(30, shape.vocab);
  Machine whole("cpu", {}, shape, {64, 1});
  const auto expected = whole.run(ids, {29});
  Machine steps("cpu", {}, shape, {64, 1});
  std::vector<float> last;
  for (int32_t id : ids) last = steps.run({id}, {0});
  // The same numbers go through the same kernels row by row; only the tile of the attention's
  // online sums may differ: 1e-4 of the norm.
  CHECK(relative_difference(last, expected) < 1e-4);
  CHECK(steps.kv->length() == 30);
}

TEST_CASE("cpu plan: steps on both sides of what a worker quantizes for itself") {
  // Up to 16 tokens each worker makes its own quantized copy, from 17 on they share one. Bound as
  // above: the first prompt's flips stay in the cache of the steps behind it.
  constexpr double kBound = 0.002;
  for (const Shape& shape : kShapes) {
    qllm::BackendOptions exact;
    exact.scheme = {qllm::SchemeKind::int8};
    exact.kv_as_bf16 = true;
    Machine oracle("reference", exact, shape, {32, 32});
    for (int threads : {1, 2, 3}) {
      qllm::BackendOptions options;
      options.threads = threads;
      Machine cpu("cpu", options, shape, {32, 32});
      oracle.kv->truncate(0);
      for (int64_t count : {16, 1, 17, 3, 1}) {
        std::vector<int32_t> outputs;
        for (int32_t i = 0; i < count; ++i) outputs.push_back(i);
        const auto ids = some_ids(count, shape.vocab);
        INFO("d_model ", shape.d_model, " threads ", threads, " tokens ", count);
        CHECK(relative_difference(cpu.run(ids, outputs), oracle.run(ids, outputs)) < kBound);
      }
    }
  }
}

TEST_CASE("cpu plan: two sequences in one step do not see each other") {
  const Shape shape = kShapes[0];
  const auto ids = some_ids(24, shape.vocab);
  const std::vector<int32_t> first(ids.begin(), ids.begin() + 14);
  const std::vector<int32_t> second(ids.begin() + 14, ids.end());
  for (const char* device : {"cpu", "reference"}) {
    Machine a(device, {}, shape, {64, 2});
    const auto alone_a = a.run(first, {13});
    a.kv->truncate(0);
    const auto alone_b = a.run(second, {9});
    auto kv_b = a.backend->make_kv_cache(a.kv->shape());
    a.kv->truncate(0);
    const qllm::BatchSlice slices[] = {{a.kv.get(), 0, 14}, {kv_b.get(), 14, 10}};
    std::vector<float> logits(2 * static_cast<size_t>(shape.vocab));
    const std::vector<int32_t> outputs = {13, 23};
    a.plan->execute({ids, slices, outputs}, logits);
    const auto half = static_cast<std::ptrdiff_t>(shape.vocab);
    CHECK(relative_difference({logits.begin(), logits.begin() + half}, alone_a) < 1e-4);
    CHECK(relative_difference({logits.begin() + half, logits.end()}, alone_b) < 1e-4);
    CHECK(kv_b->length() == 10);
  }
}

TEST_CASE("plan: a batch beyond its limits is refused before anything changes") {
  const Shape shape = kShapes[0];
  for (const char* device : {"cpu", "reference"}) {
    Machine m(device, {}, shape, {16, 1});
    CHECK_THROWS_AS(m.run(some_ids(17, shape.vocab), {0}), qllm::Error);
    CHECK_THROWS_AS(m.run({}, {}), qllm::Error);
    CHECK_THROWS_AS(m.run({0, 1}, {0, 1}), qllm::Error);
    CHECK_THROWS_AS(m.run({static_cast<int32_t>(shape.vocab)}, {0}), qllm::Error);
    CHECK_THROWS_AS(m.run({-1}, {0}), qllm::Error);
    CHECK_THROWS_AS(m.run({0}, {1}), qllm::Error);
    CHECK(m.kv->length() == 0);
    for (int i = 0; i < 8; ++i) m.run(some_ids(16, shape.vocab), {15});
    try {
      m.run({0}, {0});
      FAIL("a full cache took one more token");
    } catch (const qllm::Error& e) {
      CHECK(e.code() == qllm::ErrorCode::context_full);
    }
    CHECK(m.kv->length() == 128);
  }
}
