// Timers of a plan on a GPU: an event behind each stage, read when the step has ended.
#pragma once

#include <vector>

#include "backend/profile.h"
#include "cuda_device.h"

namespace qllm::cuda {

class DeviceTimers {
 public:
  /// Writes `stages` spans a step to `track` of `recorder`, which stay until the next set() or
  /// clear(). Null: as clear().
  void set(StepRecorder* recorder, SpanTrack* track, size_t stages);
  void clear();
  /// Null: off.
  StepRecorder* recorder() const { return recorder_; }

  /// The first stage begins. Waits for the stream, so that its clock can be set beside the host's.
  void begin(const Stream& stream);
  /// A stage was launched, in the order of set().
  void lap(const Stream& stream);
  /// The stream was synchronized: the spans of the step are written.
  void finish();

 private:
  StepRecorder* recorder_ = nullptr;
  SpanTrack* track_ = nullptr;
  std::vector<Event> events_;  // [stages + 1]
  size_t next_ = 0;
  int64_t began_ns_ = 0;
};

}  // namespace qllm::cuda
