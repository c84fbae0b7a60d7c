#include "backend/profile_summary.h"

#include <algorithm>
#include <utility>

namespace qllm {
namespace {

StepSpread spread_of(std::vector<int64_t> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values.front(),
          values.back()};
}

/// The times of one stage, a sample for each step that ran it.
struct Samples {
  int64_t begin_ns = 0;  // of the first
  std::vector<int64_t> ns;
  int64_t step = -1;  // of the last sample

  void add(const ProfileSpan& span, int64_t took) {
    if (ns.empty()) begin_ns = span.begin_ns;
    if (step != span.step) ns.push_back(0);
    step = span.step;
    ns.back() += took;
  }
};

/// The spans of one step, of all tracks of a team.
using Lanes = std::vector<std::span<const ProfileSpan>>;

/// Spans [first, last] of all tracks lie between two meetings: those of the slowest count.
void add_between(const Lanes& lanes, size_t first, size_t last, std::vector<Samples>* stages) {
  const auto earlier = [last](const auto& a, const auto& b) {
    return a[last].end_ns < b[last].end_ns;
  };
  const auto& slowest = *std::max_element(lanes.begin(), lanes.end(), earlier);
  for (size_t i = first; i <= last; ++i) {
    const ProfileSpan& span = slowest[i];
    const int64_t met = std::max<int64_t>(span.waited_ns, 0);
    (*stages)[static_cast<size_t>(span.stage)].add(span, span.end_ns - span.begin_ns + met);
  }
}

void add_step(const Lanes& lanes, std::vector<Samples>* stages) {
  size_t count = lanes.front().size();
  for (const auto& lane : lanes) count = std::min(count, lane.size());
  size_t first = 0;
  for (size_t i = 0; i < count; ++i) {
    const bool met = lanes.front()[i].waited_ns != ProfileSpan::kNotMet;
    if (!met && i + 1 < count) continue;
    add_between(lanes, first, i, stages);
    first = i + 1;
  }
}

/// Those of a step; spans of a track are in the order of steps.
std::span<const ProfileSpan> of_step(std::span<const ProfileSpan> all, int64_t step) {
  const auto before = [](int64_t limit) {
    return [limit](const ProfileSpan& span) { return span.step < limit; };
  };
  const auto first = std::partition_point(all.begin(), all.end(), before(step));
  return {first, std::partition_point(first, all.end(), before(step + 1))};
}

std::vector<Samples> sample(const ProfileTeam& team, int64_t first, int64_t end) {
  std::vector<Samples> stages(team.stages.size());
  Lanes lanes(team.tracks.size());
  for (int64_t step = first; step < end && !lanes.empty(); ++step) {
    for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = of_step(team.tracks[i].spans(), step);
    add_step(lanes, &stages);
  }
  return stages;
}

}  // namespace

StepTimes summarize(const StepRecorder& recorder, int64_t first, int64_t count) {
  const auto all = static_cast<int64_t>(recorder.steps().size());
  first = std::clamp<int64_t>(first, 0, all);
  const int64_t end = first + std::clamp<int64_t>(count, 0, all - first);
  StepTimes times;
  times.steps = end - first;
  std::vector<int64_t> steps;
  for (int64_t i = first; i < end; ++i) {
    const ProfileStep& step = recorder.steps()[static_cast<size_t>(i)];
    steps.push_back(step.end_ns - step.begin_ns);
  }
  times.step_ns = spread_of(std::move(steps));
  std::vector<std::pair<int64_t, StageTime>> by_begin;
  for (const ProfileTeam& team : recorder.teams()) {
    std::vector<Samples> samples = sample(team, first, end);
    for (size_t i = 0; i < samples.size(); ++i) {
      if (samples[i].ns.empty()) continue;
      by_begin.push_back(
          {samples[i].begin_ns, {team.kind, team.stages[i], spread_of(std::move(samples[i].ns))}});
    }
  }
  std::stable_sort(by_begin.begin(), by_begin.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [begin, time] : by_begin) times.stages.push_back(std::move(time));
  return times;
}

}  // namespace qllm
