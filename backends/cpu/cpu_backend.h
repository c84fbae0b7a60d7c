// The CPU backend: one object that owns topology, workers and kernels, in the order they depend.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "kernels/dot.h"

namespace qllm::cpu {

/// The tier of that name, the best of this machine where it is empty. Throws invalid_argument for
/// an unknown name, unsupported for a tier that the machine lacks.
Isa choose_isa(const std::string& name);

/// Throws invalid_argument for an unknown tier or CPU list, unsupported for a tier that the machine
/// lacks or the scheme fp32.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

class WorkerPool;
/// The workers of a backend that make_backend made, for measurements between its steps. Throws
/// invalid_argument for another.
WorkerPool& worker_pool(Backend& backend);

}  // namespace qllm::cpu
