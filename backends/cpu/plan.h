// A graph resolved for the CPU: buffers, and the list of steps that every worker walks.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "cpu_weights.h"
#include "kernels/vec.h"
#include "topology.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// What plans share with the backend that makes them; all outlive the plan.
struct CpuContext {
  const Topology* topology = nullptr;
  WorkerPool* pool = nullptr;
  const VecKernels* vec = nullptr;
  Isa isa = Isa::scalar;
  bool large_pages = true;
  bool onednn = false;  // large token counts go to oneDNN
};

std::unique_ptr<Plan> compile_plan(const CpuContext& context, const Graph& graph,
                                   std::shared_ptr<const CpuWeights> weights,
                                   const PlanLimits& limits);

}  // namespace qllm::cpu
