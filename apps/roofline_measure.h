// `qllm roofline --measure`: the model runs, and what its stages took stands beside what they take
// at least, by ceilings that are measured before and behind each round.
#pragma once

#include <functional>
#include <string>

#include "qllm/step_timer.hpp"
#include "roofline_run.h"

namespace qllm::app {

/// Opens the model of the run as one of its devices holds it.
using OpenFn = std::function<Model(const std::string& device, const RooflineCase& what)>;

/// Runs all cases on the devices of this machine, those of one scheme by turns; fills
/// RooflineCell::measured_…, and takes their estimates anew, by the ceilings of the same minutes.
/// Throws Error, Interrupted.
void measure_cells(RooflineRun& run, const OpenFn& open, int rounds);

/// What one round (of decode: some steps; of prefill: all of them) took, and its bound.
struct MeasuredRound {
  double seconds = 0;                 // of a step of decode; of the whole prompts
  double waited = 0;                  // of it, by a worker for the others
  std::vector<double> stage_seconds;  // of roofline_stages()
  rl::Estimate bound;
};

/// Adds up timed steps: all of them, divided by `count`.
MeasuredRound add_up(const std::vector<TimedStep>& steps, double count);

/// Medians and ranges over rounds. A stage that was not timed has no part in the bound.
MeasuredPhase compare(const std::vector<MeasuredRound>& rounds);

}  // namespace qllm::app
