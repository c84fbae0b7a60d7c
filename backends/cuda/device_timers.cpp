#include "device_timers.h"

#include <cmath>

namespace qllm::cuda {

void DeviceTimers::set(StepRecorder* recorder, SpanTrack* track, size_t stages) {
  clear();
  if (recorder == nullptr) return;
  recorder_ = recorder;
  track_ = track;
  for (size_t i = 0; i <= stages; ++i) events_.emplace_back(true);
}

void DeviceTimers::clear() {
  recorder_ = nullptr;
  track_ = nullptr;
  events_.clear();
}

void DeviceTimers::begin(const Stream& stream) {
  if (recorder_ == nullptr) return;
  events_[0].record(stream);
  events_[0].synchronize();
  began_ns_ = profile_now();
  next_ = 1;
}

void DeviceTimers::lap(const Stream& stream) {
  if (recorder_ != nullptr) events_[next_++].record(stream);
}

void DeviceTimers::finish() {
  if (recorder_ == nullptr) return;
  int64_t begin = began_ns_;
  for (size_t i = 1; i < next_; ++i) {
    const int64_t end = began_ns_ + std::llround(events_[i].since_ms(events_[0]) * 1e6);
    ProfileSpan span;
    span.begin_ns = begin;
    span.end_ns = end > begin ? end : begin;
    span.step = recorder_->step();
    span.stage = static_cast<int32_t>(i - 1);
    track_->write(span);
    begin = span.end_ns;
  }
}

}  // namespace qllm::cuda
