// Traces through the public API: what a session did is in it, whoever records, and nothing is left.
#include "qllm/trace.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <thread>

#include "api/tiny.h"
#include "qllm/qllm.h"
#include "qllm/step_timer.hpp"

namespace {

using qllm::Trace;
using qllm::test::greedy;
using qllm::test::open_tiny;

std::string text_of(Trace& trace) {
  std::string text;
  trace.write([&](std::string_view piece) {
    text += piece;
    return true;
  });
  return text;
}

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

qllm::ErrorCode refusal(const qllm::Model& model, const qllm::TraceOptions& options = {}) {
  try {
    const Trace trace(model, options);
  } catch (const qllm::Error& e) {
    return e.code();
  }
  return qllm::ErrorCode::ok;
}

}  // namespace

TEST_CASE("trace: steps, ops and the session's own work are in it") {
  for (const char* device : {"cpu", "reference"}) {
    INFO(device);
    const auto model = open_tiny(device);
    qllm::Session session(model);
    session.generate("before", greedy(2));
    Trace trace(model);
    const auto result = session.generate("Hello world", greedy(6));
    trace.stop();
    session.generate("behind", greedy(2));  // not in it
    const qllm::TraceInfo info = trace.info();
    CHECK(info.steps == 1 + 5);  // the prompt gives the first token
    CHECK(info.dropped_steps == 0);
    CHECK(info.dropped_spans == 0);
    const std::string text = text_of(trace);
    CHECK(count(text, "\"tokenize\",\"cat\"") == 1);
    CHECK(count(text, "\"prefill\",\"cat\"") == 1);
    CHECK(count(text, "\"decode\",\"cat\"") == 5);
    CHECK(count(text, "\"sample\",\"cat\"") == 6);
    CHECK(count(text, "\"lm_head\"") == 6 * (std::string(device) == "cpu" ? 2 : 1));
    CHECK(count(text, "\"ph\":\"X\"") ==
          static_cast<size_t>(info.spans + info.steps) + count(text, "\"wait\",\"cat\""));
    CHECK(text == text_of(trace));  // as often as one likes
    CHECK(result.generated_tokens == 6);
  }
}

TEST_CASE("trace: one at a time, and the next may begin when it has ended") {
  const auto model = open_tiny();
  {
    Trace trace(model);
    CHECK(refusal(model) == qllm::ErrorCode::invalid_argument);
    CHECK_THROWS_AS(qllm::StepTimer{model}, qllm::Error);
    qllm::Session session(model);
    session.generate("Hello", greedy(3));
    CHECK(trace.info().steps == 3);  // the one that was refused ended nothing
    Trace moved = std::move(trace);
    session.generate("Hello", greedy(3));
    CHECK(moved.info().steps > 3);
    moved.stop();
    CHECK(refusal(model) == qllm::ErrorCode::ok);
    CHECK(moved.info().steps > 3);
  }
  {
    const qllm::StepTimer timer(model);
    CHECK(refusal(model) == qllm::ErrorCode::invalid_argument);
  }
  CHECK(refusal(model) == qllm::ErrorCode::ok);
  CHECK(refusal(model, {.memory_bytes = 65535}) == qllm::ErrorCode::invalid_argument);
  CHECK(refusal(model, {.memory_bytes = int64_t{1} << 60}) == qllm::ErrorCode::out_of_memory);
  CHECK(refusal(model) == qllm::ErrorCode::ok);
}

TEST_CASE("trace: what finds no room is dropped by whole steps, and counted") {
  const auto model = open_tiny();
  qllm::Session session(model);
  Trace trace(model, {.memory_bytes = int64_t{64} << 10});
  session.generate("Hello", greedy(200));
  const qllm::TraceInfo info = trace.info();
  CHECK(info.steps > 0);
  CHECK(info.dropped_steps > 0);
  CHECK(info.steps + info.dropped_steps == 200);
  CHECK(info.dropped_spans > info.dropped_steps);
  CHECK(count(text_of(trace), "\"lm_head\"") == static_cast<size_t>(2 * info.steps));
}

TEST_CASE("trace: begins and ends while sessions run on other threads") {
  const auto model = open_tiny();
  std::atomic<bool> done{false};
  std::thread other([&] {
    qllm::Session session(model);
    while (!done) session.generate("Hello world", greedy(8));
  });
  for (int i = 0; i < 20; ++i) {
    Trace trace(model);
    while (trace.info().steps < 3) std::this_thread::yield();
    const std::string text = text_of(trace);
    CHECK(text.front() == '{');
    CHECK(text.substr(text.size() - 3) == "}}\n");
  }
  done = true;
  other.join();
}

TEST_CASE("trace: the C API hands out the same") {
  qllm_error error;
  qllm_model* model = nullptr;
  REQUIRE(qllm_model_open(qllm::test::tiny_path(), nullptr, &model, &error) == QLLM_OK);
  qllm_session* session = nullptr;
  REQUIRE(qllm_session_create(model, 0, &session, &error) == QLLM_OK);
  qllm_trace* trace = nullptr;
  REQUIRE(qllm_trace_start(model, 0, &trace, &error) == QLLM_OK);
  qllm_trace* second = nullptr;
  CHECK(qllm_trace_start(model, 0, &second, &error) == QLLM_INVALID_ARGUMENT);
  CHECK(second == nullptr);
  CHECK(qllm_session_decode(session, 5, &error) == QLLM_OK);
  qllm_trace_info info = {};
  CHECK(qllm_trace_stop(trace, &info, &error) == QLLM_INVALID_ARGUMENT);
  info.struct_size = sizeof info;
  CHECK(qllm_trace_stop(trace, &info, &error) == QLLM_OK);
  CHECK(info.steps == 1);
  CHECK(info.spans > 10);
  CHECK(info.dropped_spans == 0);
  std::string text;
  const auto append = [](const char* json, size_t length, void* user) {
    static_cast<std::string*>(user)->append(json, length);
    return 0;
  };
  CHECK(qllm_trace_write(trace, append, &text, &error) == QLLM_OK);
  CHECK(count(text, "\"decode\",\"cat\"") == 1);
  const auto refuse = [](const char*, size_t, void*) { return 1; };
  CHECK(qllm_trace_write(trace, refuse, nullptr, &error) == QLLM_CANCELLED);
  CHECK(qllm_trace_write(trace, nullptr, nullptr, &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_trace_start(nullptr, 0, &second, &error) == QLLM_INVALID_ARGUMENT);
  qllm_model_close(model);  // the trace keeps it
  qllm_session_destroy(session);
  qllm_trace_destroy(trace);
  qllm_trace_destroy(nullptr);
}
