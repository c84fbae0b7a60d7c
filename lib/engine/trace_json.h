// A recording in the trace event format, which Perfetto and chrome://tracing read.
// Source: "Trace Event Format", the Chromium project: JSON object form, complete events ("X", times
// in microseconds) and metadata ("M").
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/profile.h"
#include "engine/engine_log.h"
#include "qllm/trace.hpp"

namespace qllm {

struct TraceData {
  std::string model = {};
  int64_t begin_ns = 0;  // all times are counted from here
  TraceInfo info = {};
  std::vector<const StepRecorder*> teams = {};  // one, or one per copy of the weights
  std::span<const EngineSpan> engine = {};
};

/// Processes: "engine" (a thread for the steps of each team, one for each session), "cpu" and "gpu"
/// (a thread for each track). What waited for others is an event of its own, "wait".
void write_trace(const TraceData& data, const Trace::WriteFn& write);

}  // namespace qllm
