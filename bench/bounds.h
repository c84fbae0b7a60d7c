// What binds a piece of work, memory or arithmetic, by the machine's two ceilings.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

namespace qllm::bench {

struct Ceilings {
  double gbps = 0;  // 1e9 bytes/s
  double tops = 0;  // 1e12 operations/s
};

struct Work {
  double bytes = 0;
  double operations = 0;  // a multiply-add is two

  double intensity() const { return operations / bytes; }
};

inline double memory_seconds(const Work& work, const Ceilings& c) {
  return work.bytes / (c.gbps * 1e9);
}

inline double arithmetic_seconds(const Work& work, const Ceilings& c) {
  return work.operations / (c.tops * 1e12);
}

inline bool bound_by_memory(const Work& work, const Ceilings& c) {
  return memory_seconds(work, c) >= arithmetic_seconds(work, c);
}

/// Of the ceiling that binds: 100 where `seconds` is the least time that either allows.
inline double percent_of_ceiling(const Work& work, const Ceilings& c, double seconds) {
  return 100 * std::max(memory_seconds(work, c), arithmetic_seconds(work, c)) / seconds;
}

/// The M at which M tokens of `each` on top of `fixed` (the weights) are bound by both alike;
/// infinite where that never comes.
inline double turning_point(const Work& fixed, const Work& each, const Ceilings& c) {
  const double memory = memory_seconds(fixed, c) - arithmetic_seconds(fixed, c);
  const double rise = arithmetic_seconds(each, c) - memory_seconds(each, c);
  return rise > 0 ? std::max(0.0, memory / rise) : std::numeric_limits<double>::infinity();
}

/// Time for M tokens.
struct Timing {
  double m = 0;
  double seconds = 0;
};

/// Where the measured flat (the least time of all) meets the measured slope (the least time per
/// token of all): how many tokens a pass over the weights carries for nothing. 0 without timings.
inline double measured_turning_point(const std::vector<Timing>& timings) {
  double flat = std::numeric_limits<double>::infinity();
  double slope = std::numeric_limits<double>::infinity();
  for (const Timing& t : timings) {
    flat = std::min(flat, t.seconds);
    slope = std::min(slope, t.seconds / t.m);
  }
  return timings.empty() ? 0.0 : flat / slope;
}

}  // namespace qllm::bench
