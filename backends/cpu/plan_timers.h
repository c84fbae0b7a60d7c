// The timers of a plan: a track for each worker, and one for the thread that calls execute().
#pragma once

#include <cstdint>
#include <vector>

#include "backend/profile.h"

namespace qllm::cpu {

class PlanTimers {
 public:
  /// What the calling thread does before and behind the region.
  enum HostStage : int32_t { kPrepare, kEntry, kResult };

  /// `stages`: what each worker runs, in order; those without a label take no time of their own.
  /// `entry`: where the rows of a step come from.
  void set(StepRecorder* recorder, int workers, std::vector<ProfileStage> stages,
           ProfileStage entry);
  /// Nobody records from here on.
  void clear() { *this = {}; }

  StepRecorder* recorder() const { return recorder_; }  // may be null
  /// The track of a worker whose region begins, or null.
  SpanTrack* worker(int index) const noexcept {
    if (workers_ == nullptr) return nullptr;
    SpanTrack& track = workers_->tracks[static_cast<size_t>(index)];
    track.start(recorder_->step());
    return &track;
  }

  void start_host() const noexcept {
    if (host_ != nullptr) host_->start(recorder_->step());
  }
  /// Ends what the calling thread did since start_host() or the last lap.
  void lap_host(HostStage stage) const noexcept {
    if (host_ == nullptr) return;
    host_->set_stage(stage);
    host_->lap();
  }

 private:
  StepRecorder* recorder_ = nullptr;
  ProfileTeam* workers_ = nullptr;
  SpanTrack* host_ = nullptr;
};

}  // namespace qllm::cpu
