// What recorded steps took, stage by stage.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "backend/profile.h"

namespace qllm {

/// Nanoseconds, over steps.
struct StepSpread {
  int64_t median = 0;
  int64_t min = 0;
  int64_t max = 0;
};

/// What a stage adds to the time of a step. Where the tracks of a team meet, that is the time of
/// the track that came last, and of the meeting: so the times of all stages add up to the step's,
/// but for what lies between them (handing it to the workers, and back).
struct StageTime {
  TrackKind track = TrackKind::cpu;
  ProfileStage stage;
  StepSpread ns;
};

struct StepTimes {
  int64_t steps = 0;              // that were looked at
  StepSpread step_ns;             // from begin to end
  std::vector<StageTime> stages;  // in the order in which the first step ran them
};

/// Of steps [first, first + count) of a recorder, as far as it has them.
StepTimes summarize(const StepRecorder& recorder, int64_t first = 0,
                    int64_t count = std::numeric_limits<int64_t>::max());

}  // namespace qllm
