#include "qllm/step_timer.hpp"

#include <mutex>
#include <utility>

#include "backend/profile.h"
#include "backend/profile_summary.h"
#include "engine/loaded_model.h"

namespace qllm {

namespace {

/// By step: what the tracks of all teams waited, each on average of its team.
std::vector<int64_t> waited_ns(const StepRecorder& recorder) {
  std::vector<int64_t> waited(recorder.steps().size());
  for (const ProfileTeam& team : recorder.teams()) {
    for (const SpanTrack& track : team.tracks) {
      for (const ProfileSpan& span : track.spans()) {
        const auto step = static_cast<size_t>(span.step);
        if (span.waited_ns <= 0 || step >= waited.size()) continue;
        waited[step] += span.waited_ns / static_cast<int64_t>(team.tracks.size());
      }
    }
  }
  return waited;
}

}  // namespace

struct StepTimer::Impl {
  explicit Impl(std::shared_ptr<ModelImpl> timed) : model(std::move(timed)) {
    replica().set_recorder(&recorder);
  }
  ~Impl() { replica().set_recorder(nullptr); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Replica& replica() const { return model->replicas.front(); }

  std::shared_ptr<ModelImpl> model;
  StepRecorder recorder;
};

StepTimer::StepTimer(const Model& model) : impl_(std::make_unique<Impl>(model.impl_)) {}
StepTimer::~StepTimer() = default;

std::vector<TimedStep> StepTimer::take() {
  const std::lock_guard lock(impl_->replica().plan_mutex);
  std::vector<TimedStep> steps;
  const std::vector<int64_t> waited = waited_ns(impl_->recorder);
  const auto count = static_cast<int64_t>(impl_->recorder.steps().size());
  for (int64_t i = 0; i < count; ++i) {
    const StepTimes times = summarize(impl_->recorder, i, 1);
    TimedStep& step = steps.emplace_back();
    step.ns = times.step_ns.median;
    step.waited_ns = waited[static_cast<size_t>(i)];
    step.tokens = impl_->recorder.steps()[static_cast<size_t>(i)].tokens;
    for (const StageTime& stage : times.stages) {
      step.stages.push_back({stage.stage.label, stage.stage.kind, stage.ns.median});
    }
  }
  impl_->recorder.clear();
  return steps;
}

}  // namespace qllm
