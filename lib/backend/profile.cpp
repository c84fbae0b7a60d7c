#include "backend/profile.h"

#include <algorithm>
#include <new>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace qllm {

const char* to_string(TrackKind kind) { return kind == TrackKind::gpu ? "gpu" : "cpu"; }

int64_t ProfileStage::bytes() const {
  return std::accumulate(track_bytes.begin(), track_bytes.end(), int64_t{0});
}

ProfileStage stage_of_ops(const Graph& graph, std::span<const std::string> labels, int32_t first,
                          int32_t end) {
  ProfileStage stage;
  stage.first_op = first;
  stage.end_op = end;
  for (auto op = static_cast<size_t>(first); op < static_cast<size_t>(end); ++op) {
    std::string label = labels[op];
    if (!stage.label.empty()) {
      // What stands in the same layer does not repeat it.
      const std::string layer = stage.label.substr(0, stage.label.rfind('.') + 1);
      if (label.starts_with(layer)) label.erase(0, layer.size());
      stage.label += '+';
      stage.kind += '+';
    }
    stage.label += label;
    stage.kind += op_kind(graph.ops[op]);
  }
  return stage;
}

ProfileTeam& StepRecorder::add_team(TrackKind kind, std::span<const std::string> tracks,
                                    std::vector<ProfileStage> stages, int64_t spans_per_step) {
  require(capacity_ == 0, ErrorCode::invalid_argument,
          "recorder: a plan joins before the memory is taken");
  require(spans_per_step > 0, ErrorCode::invalid_argument, "recorder: {} spans a step",
          spans_per_step);
  ProfileTeam& team = teams_.emplace_back();
  team.kind = kind;
  team.stages = std::move(stages);
  team.spans_per_step = spans_per_step;
  for (const std::string& name : tracks) team.tracks.emplace_back(name);
  for (ProfileStage& stage : team.stages) {
    stage.first_op += first_op_;
    stage.end_op += first_op_;
  }
  return team;
}

void StepRecorder::prepare() {
  if (capacity_ > 0) return;
  int64_t step_bytes = sizeof(ProfileStep);
  for (const ProfileTeam& team : teams_) {
    step_bytes +=
        team.spans_per_step * static_cast<int64_t>(team.tracks.size() * sizeof(ProfileSpan));
  }
  const int64_t steps =
      std::clamp<int64_t>(limits_.bytes / step_bytes, 1, std::max<int64_t>(limits_.steps, 1));
  try {
    steps_.reserve(static_cast<size_t>(steps));
    for (ProfileTeam& team : teams_) {
      // Written here, so that no step meets a page for the first time.
      for (SpanTrack& track : team.tracks) {
        track.spans_.resize(static_cast<size_t>(steps * team.spans_per_step));
      }
    }
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, "recorder: no memory for {} steps of {} bytes", steps,
         step_bytes);
  }
  capacity_ = steps;
}

void StepRecorder::clear() noexcept {
  steps_.clear();
  seen_ = 0;
  for (ProfileTeam& team : teams_) {
    for (SpanTrack& track : team.tracks) {
      track.size_ = 0;
      track.limit_ = 0;
      track.dropped_ = 0;
    }
  }
}

void StepRecorder::begin_step(const ProfileStep& step) {
  if (depth_++ > 0) return;
  try {
    prepare();
  } catch (...) {
    --depth_;  // nobody will call end_step()
    throw;
  }
  const bool fits = seen_ < capacity_;
  ++seen_;
  for (ProfileTeam& team : teams_) {
    for (SpanTrack& track : team.tracks) track.limit_ = fits ? track.spans_.size() : track.size_;
  }
  if (!fits) return;
  steps_.push_back(step);
  steps_.back().begin_ns = profile_now();
}

void StepRecorder::end_step() noexcept {
  if (--depth_ == 0 && dropped_steps() == 0) steps_.back().end_ns = profile_now();
}

int64_t StepRecorder::bytes() const {
  auto bytes = static_cast<int64_t>(steps_.capacity() * sizeof(ProfileStep));
  for (const ProfileTeam& team : teams_) {
    for (const SpanTrack& track : team.tracks) {
      bytes += static_cast<int64_t>(track.spans_.capacity() * sizeof(ProfileSpan));
    }
  }
  return bytes;
}

int64_t StepRecorder::dropped_spans() const {
  int64_t spans = 0;
  for (const ProfileTeam& team : teams_) {
    for (const SpanTrack& track : team.tracks) spans += track.dropped();
  }
  return spans;
}

}  // namespace qllm
