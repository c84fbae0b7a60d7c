// Timers of real plans on a tiny model: every op of the graph has its time in every step, on every
// track, and the times lie end to end.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/profile.h"
#include "backend/profile_summary.h"
#include "model/llama.h"
#include "model/synthetic.h"

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
  c.context_length = 256;
  return c;
}

struct Machine {
  qllm::Graph graph = qllm::build_llama(small_config());
  std::unique_ptr<qllm::Backend> backend;
  std::shared_ptr<const qllm::Weights> weights;
  std::unique_ptr<qllm::Plan> plan;
  std::unique_ptr<qllm::KvCache> kv;

  Machine(const std::string& device, int threads) {
    qllm::BackendOptions options;
    options.threads = threads;
    options.scheme = {qllm::SchemeKind::int8};
    backend = qllm::make_backend(device, options);
    weights = backend->load(graph, std::make_shared<qllm::SyntheticSource>(graph, 3), {});
    plan = backend->compile(graph, weights, {64, 64});
    const qllm::ModelConfig c = small_config();
    kv = backend->make_kv_cache({c.n_layers, c.n_kv_heads, c.head_dim}, 256);
  }

  std::vector<float> run(int32_t count) {
    const std::vector<int32_t> ids(static_cast<size_t>(count), 5);
    const int32_t last = count - 1;
    const qllm::BatchSlice slice{kv.get(), 0, count};
    std::vector<float> logits(300);
    plan->execute({ids, {&slice, 1}, {&last, 1}}, logits);
    return logits;
  }
};

/// 60 tokens, so that the next step's attention meets within, then single ones.
void run_steps(Machine& machine) {
  machine.run(60);
  for (int i = 0; i < 20; ++i) machine.run(1);
}

void check_track(const qllm::SpanTrack& track, const qllm::StepRecorder& recorder,
                 size_t n_stages) {
  INFO(track.name());
  CHECK(track.dropped() == 0);
  int64_t behind = 0;
  for (const qllm::ProfileSpan& span : track.spans()) {
    REQUIRE(static_cast<size_t>(span.step) < recorder.steps().size());
    REQUIRE(static_cast<size_t>(span.stage) < n_stages);
    const qllm::ProfileStep& step = recorder.steps()[static_cast<size_t>(span.step)];
    REQUIRE(span.begin_ns >= std::max(behind, step.begin_ns));
    REQUIRE(span.end_ns >= span.begin_ns);
    behind = span.end_ns + std::max<int64_t>(span.waited_ns, 0);
    REQUIRE(behind <= step.end_ns);
  }
}

/// The ops of the graph that a track has spans of in a step.
std::set<int32_t> ops_of(const qllm::ProfileTeam& team, const qllm::SpanTrack& track,
                         int32_t step) {
  std::set<int32_t> ops;
  for (const qllm::ProfileSpan& span : track.spans()) {
    if (span.step != step) continue;
    const qllm::ProfileStage& stage = team.stages[static_cast<size_t>(span.stage)];
    for (int32_t op = stage.first_op; op < stage.end_op; ++op) ops.insert(op);
  }
  return ops;
}

/// The embedding is gathered by the calling thread, everything else by every worker.
void check_every_op(const qllm::StepRecorder& recorder, size_t n_ops) {
  const qllm::ProfileTeam& workers = recorder.teams().front();
  for (int32_t step = 0; step < static_cast<int32_t>(recorder.steps().size()); ++step) {
    for (const qllm::SpanTrack& track : workers.tracks) {
      std::set<int32_t> ops = ops_of(workers, track, step);
      if (recorder.teams().size() > 1) {
        const qllm::ProfileTeam& host = recorder.teams()[1];
        ops.merge(ops_of(host, host.tracks.front(), step));
      }
      CHECK(ops.size() == n_ops);
    }
  }
}

}  // namespace

TEST_CASE("plan timers: every op has its time in every step and on every track, end to end") {
  for (const auto& [device, threads] :
       {std::pair{"cpu", 1}, {"cpu", 2}, {"cpu", 3}, {"reference", 1}}) {
    INFO(device, " ", threads);
    Machine machine(device, threads);
    qllm::StepRecorder recorder;
    machine.plan->set_recorder(&recorder);
    run_steps(machine);
    machine.plan->set_recorder(nullptr);
    machine.run(1);
    REQUIRE(recorder.steps().size() == 21);
    CHECK(recorder.steps()[0].tokens == 60);
    CHECK(recorder.steps()[0].past == 0);
    CHECK(recorder.steps()[20].tokens == 1);
    CHECK(recorder.steps()[20].outputs == 1);
    CHECK(recorder.steps()[20].past == 79);
    CHECK(recorder.dropped_steps() == 0);
    CHECK(recorder.teams().front().tracks.size() == static_cast<size_t>(threads));
    for (const qllm::ProfileTeam& team : recorder.teams()) {
      for (const auto& track : team.tracks) check_track(track, recorder, team.stages.size());
    }
    check_every_op(recorder, machine.graph.ops.size());
  }
}

TEST_CASE("plan timers: of a worker, spans and waits leave no gap within a step") {
  Machine machine("cpu", 2);
  qllm::StepRecorder recorder;
  machine.plan->set_recorder(&recorder);
  run_steps(machine);
  for (const qllm::SpanTrack& track : recorder.teams().front().tracks) {
    const qllm::ProfileSpan* before = nullptr;
    for (const qllm::ProfileSpan& span : track.spans()) {
      if (before != nullptr && before->step == span.step) {
        REQUIRE(before->end_ns + std::max<int64_t>(before->waited_ns, 0) == span.begin_ns);
      }
      before = &span;
    }
  }
}

TEST_CASE("plan timers: the bytes of all linears are those of the packed weights") {
  Machine machine("cpu", 3);
  qllm::StepRecorder recorder;
  machine.plan->set_recorder(&recorder);
  int64_t bytes = 0;
  for (const qllm::ProfileStage& stage : recorder.teams().front().stages) bytes += stage.bytes();
  const int64_t gains = (2 * 2 + 1) * 64 * 4;  // two a layer and the last
  CHECK(bytes + gains == machine.weights->bytes());
}

TEST_CASE("plan timers: logits are the same with and without") {
  Machine plain("cpu", 2);
  Machine timed("cpu", 2);
  qllm::StepRecorder recorder;
  timed.plan->set_recorder(&recorder);
  CHECK(plain.run(60) == timed.run(60));
  CHECK(plain.run(1) == timed.run(1));
}

TEST_CASE("plan timers: the summary adds up to the step, stages in the order in which they run") {
  Machine machine("cpu", 2);
  machine.run(4);
  qllm::StepRecorder recorder;
  machine.plan->set_recorder(&recorder);
  machine.run(60);
  const qllm::StepTimes times = qllm::summarize(recorder);
  std::vector<std::string> labels;
  int64_t sum = 0;
  for (const qllm::StageTime& time : times.stages) {
    labels.push_back(time.stage.label);
    sum += time.ns.median;
  }
  const std::vector<std::string> begin = {"prepare",
                                          "token_embd",
                                          "blk.0.attn_norm",
                                          "blk.0.attn_qkv",
                                          "rope_table",
                                          "blk.0.rope_kv_write",
                                          "blk.0.attention",
                                          "blk.0.attention.quantize",
                                          "blk.0.attn_output",
                                          "blk.0.ffn_norm",
                                          "blk.0.ffn_gate_up+swiglu",
                                          "blk.0.swiglu.quantize",
                                          "blk.0.ffn_down",
                                          "blk.1.attn_norm"};
  REQUIRE(labels.size() > begin.size());
  CHECK(std::vector<std::string>(labels.begin(), labels.begin() + begin.size()) == begin);
  CHECK(labels.back() == "copy_out");
  CHECK(labels[labels.size() - 2] == "lm_head");
  CHECK(sum <= times.step_ns.median);
}
