// The CPU backend: one object that owns topology, workers and kernels, in the order they depend.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace qllm::cpu {

/// Throws invalid_argument for an unknown tier or CPU list, unsupported for a tier that the machine
/// lacks or a scheme other than int8.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace qllm::cpu
