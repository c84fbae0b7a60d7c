// A recording made by hand, as the trace event format has it: exactly these events.
#include "engine/trace_json.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"

namespace {

using nlohmann::json;
using qllm::ProfileSpan;

constexpr int64_t kNotMet = ProfileSpan::kNotMet;

struct Written {
  json document;
  size_t pieces = 0;
};

Written write(const qllm::TraceData& data) {
  Written out;
  std::string text;
  qllm::write_trace(data, [&](std::string_view piece) {
    text += piece;
    ++out.pieces;
    return true;
  });
  out.document = json::parse(text);
  return out;
}

/// Two workers, two stages; one step.
void record(qllm::StepRecorder& recorder, qllm::TrackKind kind) {
  const std::vector<std::string> names = {"w 0", "w 1"};
  qllm::ProfileTeam& team = recorder.add_team(
      kind, names, {{"a\"b", "norm"}, {"blk.0.up", "linear", 1, 2, {3000, 1000}}}, 2);
  const qllm::RecordedStep step(&recorder, {.tokens = 3, .outputs = 1, .past = 9});
  team.tracks[0].write({2000, 2500, kNotMet, 0, 0});
  team.tracks[0].write({2500, 4000, 0, 0, 1});
  team.tracks[1].write({2000, 2250, kNotMet, 0, 0});
  team.tracks[1].write({2250, 3250, 751, 0, 1});
}

std::vector<json> complete_events(const json& document, int process) {
  std::vector<json> events;
  for (const json& event : document.at("traceEvents")) {
    if (event.at("ph") == "X" && event.at("pid") == process) events.push_back(event);
  }
  return events;
}

/// By process and thread.
std::string thread_name(const json& document, int process, int thread) {
  for (const json& event : document.at("traceEvents")) {
    if (event.at("name") == "thread_name" && event.at("pid") == process &&
        event.at("tid") == thread) {
      return event.at("args").at("name");
    }
  }
  return "";
}

}  // namespace

TEST_CASE("trace json: the events of a tiny recording, with times in microseconds") {
  qllm::StepRecorder recorder;
  record(recorder, qllm::TrackKind::cpu);
  const std::vector<qllm::EngineSpan> engine = {{1500, 1999, 3, 1, qllm::EngineWork::tokenize},
                                                {2000, 5000, 3, 1, qllm::EngineWork::prefill},
                                                {5000, 6001, 1, 2, qllm::EngineWork::sample}};
  const json document =
      write({.model = "tiny", .begin_ns = 1000, .teams = {&recorder}, .engine = engine}).document;
  CHECK(document.at("displayTimeUnit") == "ms");

  const auto expect = [](const char* name, const char* category, int thread, double ts, double dur,
                         const json& args) {
    return json{{"ph", "X"},       {"pid", 2}, {"tid", thread}, {"name", name},
                {"cat", category}, {"ts", ts}, {"dur", dur},    {"args", args}};
  };
  const json first = {{"step", 0}, {"tokens", 3}};
  json up_0 = first;
  up_0["bytes"] = 3000;
  up_0["GB/s"] = 2.0;
  json up_1 = first;
  up_1["bytes"] = 1000;
  up_1["GB/s"] = 1.0;
  const std::vector<json> expected = {
      expect("a\"b", "norm", 1, 1.0, 0.5, first), expect("blk.0.up", "linear", 1, 1.5, 1.5, up_0),
      expect("a\"b", "norm", 2, 1.0, 0.25, first), expect("blk.0.up", "linear", 2, 1.25, 1.0, up_1),
      expect("wait", "wait", 2, 2.25, 0.751, {{"step", 0}})};
  CHECK(complete_events(document, 2) == expected);
  CHECK(thread_name(document, 2, 1) == "w 0");
  CHECK(thread_name(document, 2, 2) == "w 1");

  const std::vector<json> of_engine = complete_events(document, 1);
  REQUIRE(of_engine.size() == 1 + 3);
  CHECK(of_engine[0].at("name") == "3 tokens");
  CHECK(of_engine[0].at("args").at("outputs") == 1);
  CHECK(of_engine[0].at("args").at("past") == 9);
  CHECK(of_engine[0].at("args").at("bytes") == 4000);
  CHECK(of_engine[1].at("name") == "tokenize");
  CHECK(of_engine[1].at("ts") == 0.5);
  CHECK(of_engine[3].at("dur") == 1.001);
  CHECK(thread_name(document, 1, of_engine[0].at("tid")) == "steps");
  CHECK(thread_name(document, 1, of_engine[1].at("tid")) == "session 1");
  CHECK(thread_name(document, 1, of_engine[2].at("tid")) == "session 1");
  CHECK(thread_name(document, 1, of_engine[3].at("tid")) == "session 2");
}

TEST_CASE("trace json: teams of several copies and of a gpu have threads of their own") {
  qllm::StepRecorder a;
  qllm::StepRecorder b;
  record(a, qllm::TrackKind::cpu);
  record(b, qllm::TrackKind::gpu);
  const json document = write({.teams = {&a, &b}}).document;
  CHECK(complete_events(document, 2).size() == 5);
  CHECK(complete_events(document, 3).size() == 5);
  CHECK(thread_name(document, 2, 1) == "team 0: w 0");
  CHECK(thread_name(document, 3, 4) == "team 1: w 1");
  CHECK(thread_name(document, 1, 0) == "team 0: steps");
  CHECK(thread_name(document, 1, 1) == "team 1: steps");
}

TEST_CASE("trace json: what was dropped is said, names are quoted, nothing is valid too") {
  qllm::StepRecorder recorder;
  qllm::TraceData data;
  data.model = "a \"model\" \xff\n";
  data.info = {7, 8, 9, 10};
  data.teams = {&recorder};
  const json other = write(data).document.at("otherData");
  CHECK(other.at("model") == "a \"model\" \xef\xbf\xbd\n");
  CHECK(other.at("steps") == 7);
  CHECK(other.at("spans") == 8);
  CHECK(other.at("dropped_steps") == 9);
  CHECK(other.at("dropped_spans") == 10);
}

TEST_CASE("trace json: a long one comes in pieces, and ends where the sink wants no more") {
  std::vector<qllm::EngineSpan> engine(20000);
  for (qllm::EngineSpan& span : engine) span.session = 1;
  const qllm::TraceData data{.model = "long", .engine = engine};
  const Written written = write(data);
  CHECK(written.pieces > 10);
  CHECK(complete_events(written.document, 1).size() == engine.size());

  int pieces = 0;
  try {
    qllm::write_trace(data, [&](std::string_view) { return ++pieces < 3; });
    FAIL("it went on");
  } catch (const qllm::Error& e) {
    CHECK(e.code() == qllm::ErrorCode::cancelled);
  }
  CHECK(pieces == 3);
}

TEST_CASE("engine log: what finds no room is counted, and nothing is taken while it is off") {
  qllm::EngineLog log;
  log.add({1, 2, 1, 1, qllm::EngineWork::decode});
  { const qllm::EngineTimer timer(log, 1, qllm::EngineWork::decode); }
  CHECK(log.size() == 0);
  log.start(3);
  for (int i = 0; i < 5; ++i) {
    const qllm::EngineTimer timer(log, 4, qllm::EngineWork::sample, i);
  }
  CHECK(log.size() == 3);
  CHECK(log.dropped() == 2);
  const qllm::EngineLog::Taken taken = log.stop();
  CHECK(taken.dropped == 2);
  REQUIRE(taken.spans.size() == 3);
  CHECK(taken.spans[2].tokens == 2);
  CHECK(taken.spans[2].session == 4);
  CHECK(taken.spans[2].begin_ns <= taken.spans[2].end_ns);
  CHECK(taken.spans[1].end_ns <= taken.spans[2].begin_ns);
  CHECK(log.size() == 0);
}
