#include "engine/trace_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace qllm {
namespace {

constexpr size_t kPiece = size_t{64} << 10;
constexpr int kEngine = 1;  // processes
constexpr int kCpu = 2;
constexpr int kGpu = 3;

int process_of(TrackKind kind) { return kind == TrackKind::gpu ? kGpu : kCpu; }

/// A JSON string; what is no UTF-8 becomes U+FFFD.
std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Where an event stands.
struct Place {
  int process = 0;
  int thread = 0;
};

/// Writes events one behind the other, and hands them out in pieces.
class EventStream {
 public:
  EventStream(int64_t begin_ns, const Trace::WriteFn& write) : begin_(begin_ns), write_(write) {
    text_ = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  }

  void metadata(const Place& at, const char* what, std::string_view args) {
    next();
    append(R"({{"ph":"M","pid":{},"tid":{},"name":"{}","args":{{{}}}}})", at.process, at.thread,
           what, args);
  }
  void process(int process, const char* name) {
    metadata({process, 0}, "process_name", fmt::format(R"("name":"{}")", name));
    metadata({process, 0}, "process_sort_index", fmt::format(R"("sort_index":{})", process));
  }
  void thread(const Place& at, const std::string& name) {
    metadata(at, "thread_name", "\"name\":" + json_string(name));
    metadata(at, "thread_sort_index", fmt::format(R"("sort_index":{})", at.thread));
  }

  /// `name` is a JSON string, `args` are members of an object.
  void complete(const Place& at, std::string_view name, std::string_view category, int64_t begin_ns,
                int64_t end_ns, std::string_view args) {
    next();
    append(R"({{"ph":"X","pid":{},"tid":{},"ts":)", at.process, at.thread);
    microseconds(begin_ns - begin_);
    append(R"(,"dur":)");
    microseconds(end_ns - begin_ns);
    append(R"(,"name":{},"cat":"{}","args":{{{}}}}})", name, category, args);
  }

  void finish(std::string_view members) {
    append("\n],{}}}\n", members);
    flush();
  }

 private:
  template <typename... Args>
  void append(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }
  /// Exact: a double would lose nanoseconds after some days, and digits are cheap.
  void microseconds(int64_t ns) {
    ns = std::max<int64_t>(ns, 0);
    append("{}.{:03}", ns / 1000, ns % 1000);
  }
  void next() {
    text_ += first_ ? "\n" : ",\n";
    first_ = false;
    if (text_.size() >= kPiece) flush();
  }
  void flush() {
    require(write_(text_), ErrorCode::cancelled, "trace: writing was ended");
    text_.clear();
  }

  int64_t begin_;
  const Trace::WriteFn& write_;
  std::string text_;
  bool first_ = true;
};

/// Bytes that were read in a time, where they are known.
std::string rate(int64_t bytes, int64_t ns) {
  if (bytes <= 0 || ns <= 0) return {};
  return fmt::format(R"(,"bytes":{},"GB/s":{:.3f})", bytes,
                     static_cast<double>(bytes) / static_cast<double>(ns));
}

/// Of the weights, by all tracks.
int64_t bytes_per_step(const StepRecorder& recorder) {
  int64_t bytes = 0;
  for (const ProfileTeam& team : recorder.teams()) {
    for (const ProfileStage& stage : team.stages) bytes += stage.bytes();
  }
  return bytes;
}

void write_steps(const StepRecorder& recorder, const Place& at, EventStream* out) {
  const int64_t bytes = bytes_per_step(recorder);
  int64_t number = 0;
  for (const ProfileStep& step : recorder.steps()) {
    const std::string args =
        fmt::format(R"("step":{},"tokens":{},"outputs":{},"past":{}{})", number++, step.tokens,
                    step.outputs, step.past, rate(bytes, step.end_ns - step.begin_ns));
    const std::string name =
        fmt::format("\"{} token{}\"", step.tokens, step.tokens == 1 ? "" : "s");
    out->complete(at, name, "step", step.begin_ns, step.end_ns, args);
  }
}

void write_track(const StepRecorder& recorder, const ProfileTeam& team, size_t index,
                 const Place& at, EventStream* out) {
  std::vector<std::string> names;
  for (const ProfileStage& stage : team.stages) names.push_back(json_string(stage.label));
  for (const ProfileSpan& span : team.tracks[index].spans()) {
    const ProfileStage& stage = team.stages[static_cast<size_t>(span.stage)];
    const int64_t bytes = stage.track_bytes.empty() ? 0 : stage.track_bytes[index];
    const ProfileStep& step = recorder.steps()[static_cast<size_t>(span.step)];
    const std::string args = fmt::format(R"("step":{},"tokens":{}{})", span.step, step.tokens,
                                         rate(bytes, span.end_ns - span.begin_ns));
    out->complete(at, names[static_cast<size_t>(span.stage)], stage.kind, span.begin_ns,
                  span.end_ns, args);
    if (span.waited_ns <= 0) continue;
    out->complete(at, "\"wait\"", "wait", span.end_ns, span.end_ns + span.waited_ns,
                  fmt::format(R"("step":{})", span.step));
  }
}

void write_sessions(const TraceData& data, int first_thread, EventStream* out) {
  std::map<int32_t, Place> places;
  for (const EngineSpan& span : data.engine) {
    const auto [place, is_new] =
        places.try_emplace(span.session, Place{kEngine, first_thread + span.session});
    if (is_new) out->thread(place->second, fmt::format("session {}", span.session));
    const char* work = to_string(span.work);
    out->complete(place->second, fmt::format("\"{}\"", work), work, span.begin_ns, span.end_ns,
                  fmt::format(R"("tokens":{})", span.tokens));
  }
}

/// "": the only team.
std::string team_name(const TraceData& data, size_t team) {
  return data.teams.size() > 1 ? fmt::format("team {}: ", team) : "";
}

void write_teams(const TraceData& data, EventStream* out) {
  int thread = 0;
  for (size_t i = 0; i < data.teams.size(); ++i) {
    const StepRecorder& recorder = *data.teams[i];
    const Place steps{kEngine, static_cast<int>(i)};
    out->thread(steps, team_name(data, i) + "steps");
    write_steps(recorder, steps, out);
    for (const ProfileTeam& team : recorder.teams()) {
      for (size_t t = 0; t < team.tracks.size(); ++t) {
        const Place at{process_of(team.kind), ++thread};
        out->thread(at, team_name(data, i) + team.tracks[t].name());
        write_track(recorder, team, t, at, out);
      }
    }
  }
}

bool has_gpu(const TraceData& data) {
  for (const StepRecorder* recorder : data.teams) {
    for (const ProfileTeam& team : recorder->teams()) {
      if (team.kind == TrackKind::gpu) return true;
    }
  }
  return false;
}

}  // namespace

void write_trace(const TraceData& data, const Trace::WriteFn& write) {
  EventStream out(data.begin_ns, write);
  out.process(kEngine, "engine");
  out.process(kCpu, "cpu");
  if (has_gpu(data)) out.process(kGpu, "gpu");
  write_teams(data, &out);
  write_sessions(data, static_cast<int>(data.teams.size()), &out);
  out.finish(fmt::format(
      R"("otherData":{{"program":"qllm {}","model":{},"steps":{},"spans":{},"dropped_steps":{},"dropped_spans":{}}})",
      version(), json_string(data.model), data.info.steps, data.info.spans, data.info.dropped_steps,
      data.info.dropped_spans));
}

}  // namespace qllm
