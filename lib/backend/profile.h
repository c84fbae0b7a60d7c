// Per-op timers of plans: which worker of a CPU, which stream of a GPU did what when, op by op.
//
//   StepRecorder recorder;
//   plan->set_recorder(&recorder);  // the plan adds its teams of tracks and names its stages
//   recorder.prepare();             // all memory is taken here
//   plan->execute(batch, logits);   // each track writes spans of its own
//   plan->set_recorder(nullptr);
//
// A stage is what a plan does as one: an op of the graph, several that it runs as one, or something
// of its own. A track is whoever does one stage behind the other. A team is a set of tracks that
// walk the same stages side by side and meet. All times are of one clock, profile_now().
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace qllm {

/// Nanoseconds of the steady clock. Some 25 ns a call.
inline int64_t profile_now() noexcept {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

enum class TrackKind : uint8_t { cpu, gpu };

/// "cpu", "gpu".
const char* to_string(TrackKind kind);

struct ProfileStage {
  std::string label;     // of its ops, joined: "blk.3.ffn_gate_up+swiglu"
  std::string kind;      // likewise: "linear+swiglu"; or "quantize", "copy", …
  int32_t first_op = 0;  // ops [first_op, end_op) of the graph; none where equal
  int32_t end_op = 0;
  std::vector<int64_t> track_bytes = {};  // of weights that each track reads in each step; empty:
                                          // none, or not known

  int64_t bytes() const;
};

/// Of ops [first, end), whose op_labels() are `labels`.
ProfileStage stage_of_ops(const Graph& graph, std::span<const std::string> labels, int32_t first,
                          int32_t end);

/// One stage of one track: it worked in [begin_ns, end_ns), then waited for its team.
struct ProfileSpan {
  static constexpr int64_t kNotMet = -1;

  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  int64_t waited_ns = kNotMet;  // behind end_ns, until all had come; kNotMet: they did not meet
  int32_t step = 0;             // index into StepRecorder::steps()
  int32_t stage = 0;            // index into ProfileTeam::stages
};

/// The spans of one worker or stream, which alone writes them: no lock, no allocation, no cache
/// line that another track writes. What finds no room is counted and not written.
class alignas(64) SpanTrack {
 public:
  explicit SpanTrack(std::string name) : name_(std::move(name)) {}
  SpanTrack(const SpanTrack&) = delete;
  SpanTrack& operator=(const SpanTrack&) = delete;

  /// For work timed while it happens: from here on spans lie end to end.
  void start(int32_t step) noexcept {
    open_.step = step;
    open_.begin_ns = profile_now();
  }
  /// What is done from here on, to the end of the span.
  void set_stage(int32_t stage) noexcept { open_.stage = stage; }
  /// Ends a span.
  void lap() noexcept {
    const int64_t now = profile_now();
    close(now, ProfileSpan::kNotMet, now);
  }
  /// Ends a span whose work ended at `arrived`; all of the team have come now.
  void lap_met(int64_t arrived) noexcept {
    const int64_t now = profile_now();
    close(arrived, now - arrived, now);
  }
  /// A span measured elsewhere, such as by events of a GPU; behind those written before. Its times
  /// are converted to profile_now() already.
  void write(const ProfileSpan& span) noexcept {
    if (size_ < limit_) {
      spans_[size_++] = span;
    } else {
      ++dropped_;
    }
  }

  const std::string& name() const { return name_; }
  std::span<const ProfileSpan> spans() const { return {spans_.data(), size_}; }
  int64_t dropped() const { return dropped_; }

 private:
  friend class StepRecorder;
  void close(int64_t end, int64_t waited, int64_t next) noexcept {
    open_.end_ns = end;
    open_.waited_ns = waited;
    write(open_);
    open_.begin_ns = next;
  }

  std::vector<ProfileSpan> spans_;  // all that there is room for
  size_t size_ = 0;
  size_t limit_ = 0;
  int64_t dropped_ = 0;
  ProfileSpan open_;
  std::string name_;
};

/// Tracks that walk the same stages side by side, each stage once or more often in a step.
struct ProfileTeam {
  TrackKind kind = TrackKind::cpu;
  std::vector<ProfileStage> stages;
  int64_t spans_per_step = 0;    // the most that one track writes in a step
  std::deque<SpanTrack> tracks;  // addresses stay
};

/// One call of Plan::execute.
struct ProfileStep {
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  int64_t tokens = 0;   // of all sequences
  int64_t outputs = 0;  // rows of logits
  int64_t past = 0;     // tokens in the caches before it, of all sequences
};

struct RecorderLimits {
  int64_t steps = 4096;
  int64_t bytes = int64_t{64} << 20;  // of all tracks together; at least one step
};

/// The timers of one plan, or of several that run as one. Whole steps are recorded: those that find
/// no room are dropped and counted. One thread at a time, except that tracks are written side by
/// side within a step.
class StepRecorder {
 public:
  explicit StepRecorder(const RecorderLimits& limits = {}) : limits_(limits) {}
  StepRecorder(const StepRecorder&) = delete;
  StepRecorder& operator=(const StepRecorder&) = delete;

  /// For Plan::set_recorder: the address stays. Throws invalid_argument behind prepare().
  ProfileTeam& add_team(TrackKind kind, std::span<const std::string> tracks,
                        std::vector<ProfileStage> stages, int64_t spans_per_step);
  /// Ops of teams added from here on begin at `op` of the graph: where several plans run a part
  /// each (one that begins with an InputOp counts that too).
  void set_first_op(int32_t op) { first_op_ = op; }

  /// Takes the memory, for as many steps as the limits allow. Throws out_of_memory. Without it the
  /// first step does so.
  void prepare();
  /// Forgets all steps and keeps the memory.
  void clear() noexcept;

  /// Of the step that runs: what SpanTrack::start() wants.
  int32_t step() const { return static_cast<int32_t>(seen_) - 1; }
  const std::deque<ProfileTeam>& teams() const { return teams_; }
  std::span<const ProfileStep> steps() const { return steps_; }
  int64_t capacity() const { return capacity_; }  // in steps
  int64_t bytes() const;                          // of memory
  int64_t dropped_steps() const { return seen_ - static_cast<int64_t>(steps_.size()); }
  int64_t dropped_spans() const;

 private:
  friend class RecordedStep;
  void begin_step(const ProfileStep& step);
  void end_step() noexcept;

  RecorderLimits limits_;
  std::deque<ProfileTeam> teams_;  // addresses stay
  std::vector<ProfileStep> steps_;
  int64_t capacity_ = 0;  // in steps; 0: no memory yet
  int64_t seen_ = 0;      // steps
  int depth_ = 0;         // of RecordedStep
  int32_t first_op_ = 0;
};

/// Lives as long as a step: Plan::execute makes one. Within another (a plan that runs other plans)
/// it does nothing.
class RecordedStep {
 public:
  /// `recorder` may be null. The times of `step` are not looked at.
  RecordedStep(StepRecorder* recorder, const ProfileStep& step) : recorder_(recorder) {
    if (recorder_ != nullptr) recorder_->begin_step(step);
  }
  ~RecordedStep() {
    if (recorder_ != nullptr) recorder_->end_step();
  }
  RecordedStep(const RecordedStep&) = delete;
  RecordedStep& operator=(const RecordedStep&) = delete;

 private:
  StepRecorder* recorder_;
};

}  // namespace qllm
