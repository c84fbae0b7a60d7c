// The devices of this machine as `qllm roofline` sees them: what was measured stands for the data
// sheet.
#pragma once

#include <string>

#include "roofline_run.h"

namespace qllm::app {

/// "cpu", "cuda": devices of this machine, which a row of the table is not.
bool is_local(const std::string& device);

/// What to ask the machine: kernels of the run's schemes and batches, and of those that advice and
/// curves look at.
KernelQuestion kernel_question(const std::vector<RooflineCase>& cases);

/// A device of these ceilings.
rl::Device local_device(const std::string& name, const MachineInfo& machine,
                        const MachineCeilings& ceilings);

/// Measures it, a second or two. Throws Error: unsupported where this build or machine has none.
rl::Device measure_local(const std::string& name, const OpenOptions& options,
                         const KernelQuestion& kernels);

}  // namespace qllm::app
