// How long each op of a model's steps takes, as it runs.
//
//   qllm::StepTimer timer(model);
//   session.decode(id);
//   for (const qllm::TimedStep& step : timer.take()) …
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qllm/error.hpp"
#include "qllm/qllm.hpp"

namespace qllm {

/// One step: the tokens that went through the model together.
struct TimedStep {
  /// An op, or several that run as one, or something of the device's own.
  struct Stage {
    std::string label;  // "blk.3.ffn_gate_up+swiglu"
    std::string kind;   // "linear+swiglu", "rms_norm", "attention", "quantize", …
    int64_t ns = 0;     // waiting for the slowest worker included
  };
  int64_t ns = 0;         // all of it; a little more than its stages together
  int64_t waited_ns = 0;  // of it, that a worker waits for the others on average
  int64_t tokens = 0;     // of all sequences
  std::vector<Stage> stages;
};

/// While it lives, each step of a model is timed, at less than 1 % of its time. Of a model with
/// several teams of workers, those of the first. One at a time for a model.
class QLLM_API StepTimer {
 public:
  /// Throws invalid_argument while the model is timed or traced already, out_of_memory.
  explicit StepTimer(const Model& model);
  ~StepTimer();
  StepTimer(const StepTimer&) = delete;
  StepTimer& operator=(const StepTimer&) = delete;

  /// The steps since the last take(). Those beyond some thousands are not recorded; none are where
  /// the device has no timers.
  std::vector<TimedStep> take();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qllm
