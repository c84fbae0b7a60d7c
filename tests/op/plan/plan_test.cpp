// The cpu backend against the reference under the same scheme, on whole tiny models: int32 sums are
// equal and both round keys and values to bf16, so the two differ by float rounding only.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/error.h"
#include "kernels/dot.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "quant/float_bits.h"
#include "quant/group_quant.h"
#include "support/agreement.h"
#include "support/grid_source.h"

using qllm::test::Agreement;

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

using qllm::test::GridSource;

struct Machine {
  std::unique_ptr<qllm::Backend> backend;
  std::unique_ptr<qllm::Plan> plan;
  std::shared_ptr<qllm::KvPool> pool;
  std::unique_ptr<qllm::KvCache> kv;
  int64_t vocab = 0;

  Machine(const std::string& device, const qllm::BackendOptions& options, const Shape& shape,
          qllm::PlanLimits limits, bool on_grids = false)
      : vocab(shape.vocab) {
    const qllm::ModelConfig c = config_of(shape);
    const qllm::Graph graph = qllm::build_llama(c);
    backend = qllm::make_backend(device, options);
    std::shared_ptr<const qllm::TensorSource> source =
        std::make_shared<qllm::SyntheticSource>(graph, 3);
    if (on_grids) source = std::make_shared<GridSource>(graph, source);
    plan = backend->compile(graph, backend->load(graph, source, {}), limits);
    pool = backend->make_kv_pool({c.n_layers, c.n_kv_heads, c.head_dim}, {8, 8});
    kv = std::make_unique<qllm::KvCache>(pool, 128);
  }

  std::vector<float> run(const std::vector<int32_t>& ids, const std::vector<int32_t>& outputs) {
    const qllm::BatchSlice slice{kv.get(), 0, static_cast<int64_t>(ids.size())};
    std::vector<float> logits(outputs.size() * static_cast<size_t>(vocab));
    plan->execute({ids, {&slice, 1}, outputs}, logits);
    return logits;
  }
};

std::vector<int32_t> some_ids(int64_t count, int64_t vocab, int64_t first = 11) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 37 + first) % vocab));
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
  for (auto isa : available_tiers()) {
    Agreement agreement;
    for (const Shape& shape : kShapes) {
      qllm::BackendOptions options;
      options.scheme = {qllm::SchemeKind::int8};
      options.kv_as_bf16 = true;
      options.isa = std::string(qllm::cpu::isa_name(isa));
      Machine oracle("reference", options, shape, {64, 64});
      for (int64_t first : {11, 18, 25}) {
        const auto ids = some_ids(40, shape.vocab, first);
        std::vector<int32_t> outputs;
        for (int32_t i = 0; i < 40; ++i) outputs.push_back(i);
        oracle.kv->truncate(0);
        const auto expected = oracle.run(ids, outputs);
        for (int threads : {1, 2, 3}) {
          options.threads = threads;
          Machine cpu("cpu", options, shape, {64, 64});
          agreement.compare(cpu.run(ids, outputs), expected, shape.vocab);
        }
      }
    }
    INFO("isa ", std::string(qllm::cpu::isa_name(isa)), " ", agreement.close, " of ",
         agreement.rows, " rows close, largest ", agreement.largest);
    CHECK(agreement.holds());
  }
}

namespace {

/// 40 tokens at once, then the first five one by one: other kernels, each worker's own copies.
void compare_groups(const Shape& shape, const qllm::BackendOptions& options, Machine& oracle,
                    bool on_grids, Agreement* agreement) {
  const auto ids = some_ids(40, shape.vocab);
  std::vector<int32_t> outputs;
  for (int32_t i = 0; i < 40; ++i) outputs.push_back(i);
  oracle.kv->truncate(0);
  const auto expected = oracle.run(ids, outputs);
  Machine cpu("cpu", options, shape, {64, 64}, on_grids);
  agreement->compare(cpu.run(ids, outputs), expected, shape.vocab);
  cpu.kv->truncate(0);
  for (std::ptrdiff_t i = 0; i < 5; ++i) {
    const auto row = expected.begin() + i * shape.vocab;
    agreement->compare(cpu.run({ids[static_cast<size_t>(i)]}, {0}), {row, row + shape.vocab},
                       shape.vocab);
  }
}

}  // namespace

TEST_CASE("cpu plan: weights in groups equal the reference on every tier") {
  // Sums in groups are exact too; measured: 0.84 of the rows close on scalar, 0.91 on AVX2.
  const Shape wide{256, 512, 4, 2, 64, 300};
  for (auto isa : available_tiers()) {
    Agreement agreement;
    for (const char* name : {"int4-g32", "int4-g64", "int4-g128", "int4-g32-sym", "int4-g64-sym",
                             "int4-g128-sym", "keep"}) {
      const bool on_grids = std::string(name) == "keep";
      for (const Shape& shape : {kShapes[0], kShapes[1], kShapes[3], wide}) {
        qllm::BackendOptions options;
        options.scheme = qllm::parse_scheme(name);
        options.kv_as_bf16 = true;
        options.isa = std::string(qllm::cpu::isa_name(isa));
        Machine oracle("reference", options, shape, {64, 64}, on_grids);
        for (int threads : {1, 3}) {
          options.threads = threads;
          compare_groups(shape, options, oracle, on_grids, &agreement);
        }
        INFO(name, " d_model ", shape.d_model, " isa ", options.isa);
        CHECK(agreement.largest < Agreement::kRoundedAnew);
      }
    }
    INFO(agreement.close, " of ", agreement.rows, " rows close");
    CHECK(2 * agreement.close > agreement.rows);
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
  // Up to 16 tokens each worker makes its own quantized copy, from 17 on they share one. A flip
  // stays in the cache of the steps behind it.
  Agreement agreement;
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
        const auto expected = oracle.run(ids, outputs);
        agreement.compare(cpu.run(ids, outputs), expected, shape.vocab);
        CHECK(agreement.largest < Agreement::kRoundedAnew);
      }
    }
  }
  INFO(agreement.close, " of ", agreement.rows, " rows close");
  CHECK(agreement.holds());
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
    auto kv_b = std::make_unique<qllm::KvCache>(a.pool, 128);
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
