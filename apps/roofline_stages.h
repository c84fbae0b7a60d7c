// Which ops of the roofline a plan runs as one, and what its timers call them.
#pragma once

#include <string>
#include <vector>

namespace qllm::app {

struct RooflineStage {
  std::string name;              // "ffn_in"
  std::string title;             // "gate, up, SwiGLU"
  std::vector<std::string> ops;  // of OpCost::name
};

/// In the order of a step; the last one, "rest", is what no op stands for.
const std::vector<RooflineStage>& roofline_stages();

/// Index of the stage that an op of the roofline belongs to.
size_t stage_of_op(const std::string& name);

/// Index of the stage that TimedStep::Stage{label, kind} belongs to.
size_t stage_of_timer(const std::string& label, const std::string& kind);

}  // namespace qllm::app
