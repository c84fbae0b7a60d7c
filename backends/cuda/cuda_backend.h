// The CUDA backend.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace qllm::cuda {

/// Throws unsupported, naming what is missing: a driver, a GPU, a scheme that runs on it.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace qllm::cuda
