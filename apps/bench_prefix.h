// `qllm bench --shared-prefix`: what a second request gains from a beginning that was computed
// once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench_plan.h"
#include "options.h"

namespace qllm::app {

struct PrefixLengths {
  int64_t prefix = 0;     // tokens that both requests begin with
  int64_t question = 16;  // tokens behind it
  int64_t gen = 64;
  int repeat = 5;
};

/// Two requests of the same prompt, each in a session of its own.
struct PrefixSample {
  double first_s = 0;  // to the first token
  double second_s = 0;
  int64_t reused = 0;  // tokens that the second did not compute
  bool equal = false;  // both generated the same
};

/// Each repeat has a prompt of its own; one warm-up goes before. Throws Error, Interrupted.
std::vector<PrefixSample> measure_prefix(const Model& model, const PrefixLengths& lengths,
                                         ProgressBar& bar);

std::string prefix_text(const std::vector<PrefixSample>& samples, const PrefixLengths& lengths);
Json prefix_json(const std::vector<PrefixSample>& samples, const PrefixLengths& lengths);

}  // namespace qllm::app
