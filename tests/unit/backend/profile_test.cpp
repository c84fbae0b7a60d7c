// Timers as plans use them, with spans made by hand.
#include "backend/profile.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <vector>

#include "backend/profile_summary.h"
#include "core/error.h"
#include "graph/cut.h"
#include "model/llama.h"

namespace {

using qllm::ProfileSpan;
using qllm::ProfileStep;
using qllm::RecordedStep;
using qllm::StepRecorder;
using qllm::TrackKind;

constexpr int64_t kNotMet = ProfileSpan::kNotMet;

qllm::ProfileTeam& team_of(StepRecorder& recorder, int tracks, int64_t spans_per_step) {
  std::vector<std::string> names;
  for (int i = 0; i < tracks; ++i) names.push_back(fmt::format("worker {}", i));
  return recorder.add_team(TrackKind::cpu, names, {{"a", "a", 0, 1}, {"b", "b", 1, 2}},
                           spans_per_step);
}

/// One step of `count` spans on every track.
void run_step(StepRecorder& recorder, qllm::ProfileTeam& team, int count) {
  const RecordedStep step(&recorder, {});
  for (qllm::SpanTrack& track : team.tracks) {
    track.start(recorder.step());
    for (int i = 0; i < count; ++i) {
      track.set_stage(i % 2);
      track.lap();
    }
  }
}

}  // namespace

TEST_CASE("recorder: what finds no room is counted, step by whole step, and never written") {
  // A step takes 2 tracks x 3 spans x 32 bytes and its own record: five fit.
  const int64_t bytes = 5 * (2 * 3 * sizeof(ProfileSpan) + sizeof(ProfileStep));
  StepRecorder recorder({.steps = 1000, .bytes = bytes});
  auto& team = team_of(recorder, 2, 3);
  recorder.prepare();
  CHECK(recorder.capacity() == 5);
  CHECK(recorder.bytes() == bytes);
  for (int i = 0; i < 8; ++i) run_step(recorder, team, 2);
  CHECK(recorder.steps().size() == 5);
  CHECK(recorder.dropped_steps() == 3);
  CHECK(recorder.dropped_spans() == 3 * 2 * 2);
  for (const auto& track : team.tracks) {
    REQUIRE(track.spans().size() == 10);
    for (size_t i = 0; i < 10; ++i) CHECK(track.spans()[i].step == static_cast<int32_t>(i / 2));
  }
  CHECK(recorder.bytes() == bytes);  // nothing grew

  recorder.clear();
  CHECK(recorder.steps().empty());
  CHECK(recorder.dropped_steps() == 0);
  CHECK(recorder.dropped_spans() == 0);
  run_step(recorder, team, 2);
  CHECK(recorder.steps().size() == 1);
  CHECK(team.tracks[1].spans().size() == 2);
}

TEST_CASE("recorder: a plan that writes more spans than it said loses them, not memory") {
  StepRecorder recorder({.steps = 2, .bytes = 1 << 20});
  auto& team = team_of(recorder, 1, 3);
  run_step(recorder, team, 5);
  run_step(recorder, team, 5);
  run_step(recorder, team, 5);
  CHECK(team.tracks[0].spans().size() == 6);
  CHECK(recorder.dropped_spans() == 4 + 5);
  CHECK(recorder.dropped_steps() == 1);
}

TEST_CASE("recorder: one step at least is recorded, however small the budget") {
  StepRecorder recorder({.steps = 0, .bytes = 0});
  auto& team = team_of(recorder, 1, 2);
  run_step(recorder, team, 2);
  CHECK(recorder.steps().size() == 1);
  CHECK(team.tracks[0].spans().size() == 2);
}

TEST_CASE(
    "recorder: plans that run as one make one step, and their ops stand one behind the other") {
  StepRecorder recorder;
  auto& first = team_of(recorder, 2, 2);
  recorder.set_first_op(2);
  auto& second = team_of(recorder, 1, 2);
  CHECK(second.stages[1].first_op == 3);
  CHECK(second.stages[1].end_op == 4);
  {
    const RecordedStep whole(&recorder, {.tokens = 7, .outputs = 1, .past = 3});
    run_step(recorder, first, 2);
    run_step(recorder, second, 2);
  }
  REQUIRE(recorder.steps().size() == 1);
  CHECK(recorder.steps()[0].tokens == 7);
  CHECK(recorder.steps()[0].past == 3);
  CHECK(recorder.steps()[0].end_ns >= second.tracks[0].spans()[1].end_ns);
  CHECK_THROWS_AS(team_of(recorder, 1, 1), qllm::Error);  // the memory is taken
}

TEST_CASE("recorder: without one a step costs nothing and records nothing") {
  const RecordedStep step(nullptr, {});
  StepRecorder recorder;
  CHECK(recorder.steps().empty());
}

TEST_CASE("summary: the slowest track counts between two meetings, and the meeting itself") {
  StepRecorder recorder;
  auto& team = team_of(recorder, 2, 4);
  for (int32_t step = 0; step < 3; ++step) {
    const RecordedStep recorded(&recorder, {});
    const int64_t t = 1000 * step;
    // Stage 0 without a meeting, stage 1 with one: worker 1 comes last, after 30 and 50 ns.
    team.tracks[0].write({t, t + 10, kNotMet, step, 0});
    team.tracks[0].write({t + 10, t + 60, 25, step, 1});
    team.tracks[1].write({t, t + 30, kNotMet, step, 0});
    team.tracks[1].write({t + 30, t + 80, 5, step, 1});
    // Stage 1 once more (it met within): worker 0 takes 7 ns more in each step.
    team.tracks[0].write({t + 85, t + 100 + 7 * step, 3, step, 1});
    team.tracks[1].write({t + 85, t + 90, 13 + 7 * step, step, 1});
  }
  const qllm::StepTimes times = qllm::summarize(recorder);
  CHECK(times.steps == 3);
  REQUIRE(times.stages.size() == 2);
  CHECK(times.stages[0].stage.label == "a");
  CHECK(times.stages[0].ns.median == 30);
  CHECK(times.stages[1].stage.label == "b");
  CHECK(times.stages[1].ns.min == 50 + 5 + 15 + 3);
  CHECK(times.stages[1].ns.median == 50 + 5 + 15 + 7 + 3);
  CHECK(times.stages[1].ns.max == 50 + 5 + 15 + 14 + 3);

  const qllm::StepTimes last = qllm::summarize(recorder, 2);
  CHECK(last.steps == 1);
  CHECK(last.stages[1].ns.min == times.stages[1].ns.max);
  CHECK(qllm::summarize(recorder, 3).stages.empty());
  CHECK(qllm::summarize(recorder, 0, 1).stages[1].ns.max == times.stages[1].ns.min);
}

TEST_CASE("labels: ops are named by layer and weight, with gains or without") {
  qllm::ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 300;
  c.d_model = 64;
  c.d_ff = 128;
  c.n_layers = 2;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 16;
  c.rotary_dim = 16;
  c.context_length = 128;
  const std::vector<std::string> layer = {"attn_norm",   "attn_qkv",    "rope_kv_write",
                                          "attention",   "attn_output", "ffn_norm",
                                          "ffn_gate_up", "swiglu",      "ffn_down"};
  std::vector<std::string> expected = {"token_embd"};
  for (int i = 0; i < 2; ++i) {
    for (const std::string& name : layer) expected.push_back(fmt::format("blk.{}.{}", i, name));
  }
  for (const char* name : {"select_rows", "output_norm", "lm_head"}) expected.emplace_back(name);
  CHECK(qllm::op_labels(qllm::build_llama(c)) == expected);
  const qllm::Graph rotated = qllm::build_llama(c, {.residual = true});
  CHECK(qllm::op_labels(rotated) == expected);

  // A part counts layers from 0; its ops are called as in the whole.
  std::vector<std::string> second(expected.begin() + 1 + 9, expected.end());
  second.insert(second.begin(), "input");
  CHECK(qllm::op_labels(qllm::cut(rotated, 1).second) == second);

  const qllm::ProfileStage fused = qllm::stage_of_ops(rotated, expected, 7, 9);
  CHECK(fused.label == "blk.0.ffn_gate_up+swiglu");
  CHECK(fused.kind == "linear+swiglu");
  CHECK(qllm::stage_of_ops(rotated, expected, 9, 11).label == "blk.0.ffn_down+blk.1.attn_norm");
}
