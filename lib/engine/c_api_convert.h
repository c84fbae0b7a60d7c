// The structs of the C API as those of the C++ API and back. What reads a caller's struct throws
// invalid_argument for a struct_size that no version has; a null pointer means the defaults.
#pragma once

#include <string>

#include "qllm/qllm.h"
#include "qllm/qllm.hpp"
#include "qllm/trace.hpp"

namespace qllm::c {

qllm_open_options default_open_options();
qllm_synthetic_shape default_shape();
qllm_generate_options default_generate_options();

OpenOptions to_cpp(const qllm_open_options* given);
SyntheticShape to_cpp(const qllm_synthetic_shape* given);
GenerateOptions to_cpp(const qllm_generate_options* given);

/// The strings of the result are those of `info`.
qllm_model_info to_c(const ModelInfo& info);
qllm_placement to_c(const PlacementInfo& info);
qllm_generate_result to_c(const GenerateResult& result);
qllm_trace_info to_c(const TraceInfo& info);

/// One fact a line, each line ended by a newline.
std::string describe(const MachineInfo& machine);

}  // namespace qllm::c
