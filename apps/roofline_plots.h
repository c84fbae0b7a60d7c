// The plots of the roofline report, as SVG for the inside of a page.
#pragma once

#include <string>
#include <vector>

#include "roofline_run.h"

namespace qllm::app {

struct Plot {
  std::string title;
  std::string wide;    // for 760 pixels and print
  std::string narrow;  // for a phone
};

/// Roofline of all devices with every op of the first case, the waterfall of one decode step for
/// each of the first devices, tokens/s against the batch. Throws Error (io) with gnuplot's message.
std::vector<Plot> roofline_plots(const RooflineRun& run);

}  // namespace qllm::app
