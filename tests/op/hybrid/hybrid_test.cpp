// One model on two devices: wherever it is cut, it computes what one device would.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/profile.h"
#include "graph/cut.h"
#include "hybrid/hybrid_backend.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "support/agreement.h"
#include "support/errors.h"
#include "support/second_device.h"

using namespace qllm;  // NOLINT
using qllm::test::Agreement;
using qllm::test::check_error;
using qllm::test::SecondDevice;

namespace {

constexpr int64_t kVocab = 300;
constexpr int64_t kLayers = 4;
constexpr PlanLimits kLimits{48, 8};

ModelConfig config(bool tied = true) {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = kVocab;
  c.d_model = 64;
  c.d_ff = 128;
  c.n_layers = kLayers;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 16;
  c.rotary_dim = 16;
  c.context_length = 512;
  c.tied_lm_head = tied;
  return c;
}

KvShape kv_shape(const ModelConfig& c) { return {c.n_layers, c.n_kv_heads, c.head_dim}; }

BackendOptions int8_options(int64_t layers = kAutomaticLayers) {
  BackendOptions options;
  options.scheme = {SchemeKind::int8};
  options.kv_as_bf16 = true;
  options.threads = 2;
  options.gpu_layers = layers;
  return options;
}

/// A model on a backend, with a pool of caches.
struct Machine {
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const Weights> weights;
  std::unique_ptr<Plan> plan;
  std::shared_ptr<KvPool> pool;

  explicit Machine(std::unique_ptr<Backend> made, const ModelConfig& c = config(),
                   const ProgressFn& progress = {})
      : backend(std::move(made)) {
    const Graph graph = build_llama(c);
    weights = backend->load(graph, std::make_shared<SyntheticSource>(graph, 7), progress);
    plan = backend->compile(graph, weights, kLimits);
    pool = backend->make_kv_pool(kv_shape(c), {16, 8});
  }
  Machine(const std::string& device, const BackendOptions& options, const ModelConfig& c = config())
      : Machine(make_backend(device, options), c) {}

  std::unique_ptr<KvCache> cache(int64_t capacity = 256) const {
    return std::make_unique<KvCache>(pool, capacity);
  }
  /// Logits of every token.
  std::vector<float> run(KvCache& kv, const std::vector<int32_t>& ids) const {
    std::vector<float> all;
    for (size_t first = 0; first < ids.size(); first += 8) {
      const auto now = std::span(ids).subspan(first, std::min<size_t>(8, ids.size() - first));
      const BatchSlice slice{&kv, 0, static_cast<int64_t>(now.size())};
      std::vector<int32_t> outputs(now.size());
      for (size_t i = 0; i < now.size(); ++i) outputs[i] = static_cast<int32_t>(i);
      std::vector<float> logits(now.size() * kVocab);
      plan->execute({now, {&slice, 1}, outputs}, logits);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }
  /// One step of all tokens; logits of the last.
  std::vector<float> step(KvCache& kv, const std::vector<int32_t>& ids) const {
    const BatchSlice slice{&kv, 0, static_cast<int64_t>(ids.size())};
    const auto last = static_cast<int32_t>(ids.size()) - 1;
    std::vector<float> logits(kVocab);
    plan->execute({ids, {&slice, 1}, {&last, 1}}, logits);
    return logits;
  }
};

std::vector<int32_t> some_ids(int64_t count, int64_t first = 11) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>((i * 37 + first) % kVocab));
  return ids;
}

}  // namespace

TEST_CASE("hybrid: two cpu halves compute the bits of one cpu, wherever the cut is") {
  for (const bool tied : {true, false}) {
    const ModelConfig c = config(tied);
    Machine whole("cpu", int8_options(0), c);
    const auto kv = whole.cache();
    const auto prompt = some_ids(40);
    const auto expected = whole.step(*kv, prompt);
    const auto expected_rows = whole.run(*kv, some_ids(11, 3));
    for (const int64_t layers :
         {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{3}, int64_t{4}, int64_t{99}}) {
      CAPTURE(layers);
      Machine both("cpu+cpu", int8_options(layers), c);
      const auto own = both.cache();
      CHECK(both.step(*own, prompt) == expected);
      CHECK(both.run(*own, some_ids(11, 3)) == expected_rows);
      CHECK(own->length() == 51);
      CHECK(both.weights->bytes() == whole.weights->bytes());
      CHECK(both.weights->bytes_per_step() == whole.weights->bytes_per_step());
      CHECK(both.pool->storage().block_bytes() == whole.pool->storage().block_bytes());
      CHECK(both.backend->kv_block_bytes(kv_shape(c)) == both.pool->storage().block_bytes());
      CHECK(both.backend->parts().size() == (layers > 0 && layers < kLayers ? 2 : 0));
    }
  }
}

TEST_CASE("hybrid: cpu and reference, either way round, agree with one cpu") {
  Agreement agreement;
  Machine whole("reference", int8_options(0));
  for (const char* devices : {"cpu+reference", "reference+cpu"}) {
    for (int64_t layers = 1; layers < kLayers; ++layers) {
      Machine both(devices, int8_options(layers));
      for (const int64_t first : {11, 18, 25, 32}) {
        const auto ids = some_ids(24, first);
        const auto kv = whole.cache();
        const auto own = both.cache();
        agreement.compare(both.run(*own, ids), whole.run(*kv, ids), kVocab);
      }
    }
  }
  INFO(agreement.close, " of ", agreement.rows, " rows close, largest ", agreement.largest);
  CHECK(agreement.holds());
}

TEST_CASE("hybrid: every scheme and KV format, bit for bit") {
  for (const char* scheme : {"int8", "int4-g32", "keep"}) {
    for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
      BackendOptions options = int8_options(0);
      options.scheme = parse_scheme(scheme);
      options.kv_format = format;
      Machine whole("cpu", options);
      options.gpu_layers = 3;
      Machine both("cpu+cpu", options);
      const auto kv = whole.cache();
      const auto own = both.cache();
      CAPTURE(std::string(scheme));
      CHECK(both.run(*own, some_ids(20)) == whole.run(*kv, some_ids(20)));
    }
  }
}

TEST_CASE("hybrid: several sequences in one step, forks, truncation, shared prefixes") {
  Machine whole("cpu", int8_options(0));
  Machine both("cpu+cpu", int8_options(2));
  std::vector<std::vector<float>> results;
  for (Machine* m : {&whole, &both}) {
    const auto a = m->cache();
    const auto b = m->cache();
    std::vector<float> logits(2 * kVocab);
    const auto ids = some_ids(34);
    const BatchSlice slices[] = {{a.get(), 0, 20}, {b.get(), 20, 14}};
    const std::vector<int32_t> outputs = {19, 33};
    m->plan->execute({ids, slices, outputs}, logits);
    results.push_back(logits);
    // A fork goes its own way; the block that both held is copied in both parts.
    const auto fork = a->fork();
    results.push_back(m->step(*fork, some_ids(3, 5)));
    results.push_back(m->step(*a, some_ids(3, 6)));
    CHECK(results.back() != *(results.end() - 2));
    a->truncate(20);
    CHECK(m->step(*a, some_ids(3, 5)) == *(results.end() - 2));
    // Whole blocks that another sequence computed are found.
    const auto text = some_ids(130, 9);
    const auto first = m->cache();
    for (size_t at = 0; at < text.size(); at += 26) {
      m->step(*first, {text.begin() + static_cast<std::ptrdiff_t>(at),
                       text.begin() + static_cast<std::ptrdiff_t>(at) + 26});
    }
    const auto second = m->cache();
    CHECK(second->reuse_prefix(text) == 128);
    results.push_back(m->step(*second, {text[128], text[129]}));
  }
  const size_t half = results.size() / 2;
  for (size_t i = 0; i < half; ++i) CHECK(results[i] == results[i + half]);
}

TEST_CASE("hybrid: a batch beyond its limits is refused before anything changes") {
  Machine m("cpu+cpu", int8_options(2));
  const auto kv = m.cache(64);
  CHECK_THROWS_AS(m.step(*kv, some_ids(49)), Error);
  CHECK_THROWS_AS(m.step(*kv, {static_cast<int32_t>(kVocab)}), Error);
  CHECK_THROWS_AS(m.step(*kv, {-1}), Error);
  CHECK(kv->length() == 0);
  m.step(*kv, some_ids(40));
  check_error(ErrorCode::context_full, "context is full", [&] { m.step(*kv, some_ids(25)); });
  CHECK(kv->length() == 40);
  // The pool's 16 blocks hold 1,024 tokens.
  std::vector<std::unique_ptr<KvCache>> held;
  for (int i = 0; i < 15; ++i) {
    held.push_back(m.cache());
    m.step(*held.back(), some_ids(1, i));
  }
  const auto more = m.cache();
  check_error(ErrorCode::out_of_memory, "KV memory", [&] { m.step(*more, {1}); });
  CHECK(more->length() == 0);
  held.clear();
  // Caches and weights of another backend.
  Machine other("cpu", int8_options(0));
  const auto foreign = other.cache();
  check_error(ErrorCode::invalid_argument, "another backend", [&] { m.step(*foreign, {1}); });
  check_error(ErrorCode::invalid_argument, "another backend", [&] { other.step(*more, {1}); });
  check_error(ErrorCode::invalid_argument, "another backend",
              [&] { m.backend->compile(build_llama(config()), other.weights, kLimits); });
  check_error(ErrorCode::invalid_argument, "of 3 layers, the model has 4", [&] {
    m.backend->make_kv_pool({3, 2, 16}, {1, 1});
  });
}

TEST_CASE("hybrid: progress runs once from 0 to 1 over both parts, and can cancel in each") {
  double last = 0;
  bool rises = true;
  Machine m(make_backend("reference+reference", int8_options(1)), config(),
            [&](std::string_view, double fraction) {
              rises = rises && fraction >= last;
              last = fraction;
              return true;
            });
  CHECK(rises);
  CHECK(last == 1.0);
  for (const double from : {0.0, 0.6}) {
    check_error(ErrorCode::cancelled, "cancelled", [&] {
      Machine(make_backend("cpu+reference", int8_options(2)), config(),
              [&](std::string_view, double fraction) { return fraction < from; });
    });
  }
}

TEST_CASE("hybrid: as many layers as fit into the device's free memory") {
  const ModelConfig c = config();
  const Graph graph = build_llama(c);
  const SyntheticSource source(graph, 7);
  BackendOptions options = int8_options();
  options.limits = kLimits;
  // What two layers and the head take, and what the backend says it leaves.
  const auto probe = make_backend("cpu", int8_options(0));
  const int64_t weights =
      probe->load(cut(graph, 2).second, std::make_shared<SyntheticSource>(graph, 7), {})->bytes();
  const int64_t kv = 2 * 128 * probe->kv_block_bytes({1, 2, 16});
  const auto layers_with = [&](int64_t memory) {
    Machine m(hybrid::make_backend(
        make_backend("cpu", int8_options(0)),
        std::make_unique<SecondDevice>(make_backend("cpu", int8_options(0)), memory), options));
    const auto own = m.cache();
    m.step(*own, some_ids(5));
    const auto parts = m.weights->parts();
    return parts.empty() ? (m.weights->bytes_per_step() > 0 && memory > (int64_t{1} << 30) ? 4 : 0)
                         : parts[1].layers;
  };
  // Beside the plan's buffers, which are less than a layer's keys and values, 256 MiB stay free.
  const int64_t least = weights + kv + (int64_t{256} << 20);
  CHECK(layers_with(least - 1) < 2);
  CHECK(layers_with(least + kv / 4) == 2);
  CHECK(layers_with(int64_t{1} << 20) == 0);
  CHECK(layers_with(int64_t{2} << 30) == 4);
  check_error(ErrorCode::unsupported, "device cpu: how much of its memory is free is not known",
              [&] { Machine("cpu+cpu", options); });
}

TEST_CASE("hybrid: a device without room says so, and how many layers it was asked to take") {
  auto device =
      std::make_unique<SecondDevice>(make_backend("cpu", int8_options(0)), 0, int64_t{1000});
  check_error(ErrorCode::out_of_memory,
              "second: no memory for the weights (3 of 4 layers were to lie on second: try fewer)",
              [&] {
                Machine(hybrid::make_backend(make_backend("cpu", int8_options(0)),
                                             std::move(device), int8_options(3)));
              });
}

TEST_CASE("hybrid: parts, their bytes, and the rate at which both work one behind the other") {
  auto made = std::make_unique<SecondDevice>(make_backend("cpu", int8_options(0)), 0);
  SecondDevice& device = *made;
  auto host = std::make_unique<SecondDevice>(make_backend("cpu", int8_options(0)), 0);
  host->read_gbps = 10;
  host->peak_tops = 2;
  Machine m(hybrid::make_backend(std::move(host), std::move(made), int8_options(3)));
  const auto parts = m.weights->parts();
  REQUIRE(parts.size() == 2);
  CHECK(parts[0].layers == 1);
  CHECK(parts[1].layers == 3);
  CHECK(parts[1].device == "second");
  CHECK(parts[0].bytes + parts[1].bytes == m.weights->bytes());
  CHECK(parts[0].bytes_per_step - parts[0].bytes == 64 * 4);  // one row of the embedding
  CHECK(parts[1].bytes_per_step == parts[1].bytes);
  const auto a = static_cast<double>(parts[0].bytes_per_step);
  const auto b = static_cast<double>(parts[1].bytes_per_step);
  CHECK(m.backend->measure_read_gbps(1) == doctest::Approx((a + b) / (a / 10 + b / 100)));
  // Three of four equal layers at 10, one at 2.
  CHECK(m.backend->measure_peak_tops() == doctest::Approx(4 / (1 / 2.0 + 3 / 10.0)));
  device.read_gbps = 0;  // not measurable
  CHECK(m.backend->measure_read_gbps(1) == 0);
  CHECK(device.buffer_values == kLimits.max_tokens * 64);
  CHECK(m.plan->part_seconds() == std::vector<double>{0, 0});
  const auto kv = m.cache();
  m.step(*kv, some_ids(9));
  for (const double seconds : m.plan->part_seconds()) CHECK(seconds > 0);
  CHECK(m.backend->info().name == "second+second");
  CHECK(m.backend->info().notes.back() ==
        "the first 1 layers on second, the last 3 and the LM head on second");
}

TEST_CASE("hybrid: one recorder times both parts, under the ops of the whole graph") {
  const Graph graph = build_llama(config());
  const std::vector<std::string> labels = op_labels(graph);
  Machine m("cpu+cpu", int8_options(1));
  StepRecorder recorder;
  m.plan->set_recorder(&recorder);
  recorder.prepare();
  const auto kv = m.cache();
  m.step(*kv, some_ids(5));
  m.plan->set_recorder(nullptr);
  m.step(*kv, some_ids(2));
  REQUIRE(recorder.steps().size() == 1);
  CHECK(recorder.steps()[0].tokens == 5);
  CHECK(recorder.teams().size() == 4);  // of each cpu who hands over the rows, and its workers
  std::vector<int> seen(graph.ops.size());
  for (const ProfileTeam& team : recorder.teams()) {
    for (const SpanTrack& track : team.tracks) {
      CHECK(!track.spans().empty());
      for (const ProfileSpan& span : track.spans()) CHECK(span.step == 0);
    }
    for (const ProfileStage& stage : team.stages) {
      if (stage.kind == "quantize") continue;
      for (int32_t op = stage.first_op; op < stage.end_op; ++op) {
        ++seen[static_cast<size_t>(op)];
        if (op == stage.first_op) CHECK(stage.label.starts_with(labels[static_cast<size_t>(op)]));
      }
    }
  }
  CHECK(seen == std::vector<int>(graph.ops.size(), 1));
}

TEST_CASE("hybrid: a saved sequence belongs to one split") {
  Machine one("cpu+cpu", int8_options(1));
  Machine three("cpu+cpu", int8_options(3));
  Machine whole("cpu", int8_options(0));
  Machine all("cpu+cpu", int8_options(4));
  const auto layout = [](const Machine& m) { return m.pool->storage().layout(); };
  CHECK(layout(one) != layout(three));
  CHECK(layout(one) != layout(whole));
  CHECK(layout(all) == layout(whole));
  CHECK(layout(one).find("3: cpu") == 0);
}

TEST_CASE("hybrid: options that mean nothing are refused") {
  BackendOptions options = int8_options(-2);
  check_error(ErrorCode::invalid_argument, "gpu_layers: -2, expected 0 or more, or -1",
              [&] { make_backend("cpu+cpu", options); });
  options.gpu_layers = 3;
  for (const char* device : {"cpu", "reference"}) {
    check_error(ErrorCode::invalid_argument, "3 layers asked for a GPU: device",
                [&] { make_backend(device, options); });
  }
  std::string warning;
  options.log = [&](LogLevel level, std::string_view line) {
    if (level == LogLevel::warning) warning = line;
  };
  make_backend("auto", options);
  CHECK(warning == "3 layers asked for a GPU: device auto has none; the cpu takes all");
  options.numa = NumaPolicy::replicate;
  check_error(ErrorCode::unsupported, "numa replicate", [&] { make_backend("cpu+cpu", options); });
  for (const char* device : {"cpu+", "+cpu", "cpu+abacus", "cpu+cpu+cpu"}) {
    check_error(ErrorCode::invalid_argument, "known devices are",
                [&] { make_backend(device, int8_options(1)); });
  }
}
