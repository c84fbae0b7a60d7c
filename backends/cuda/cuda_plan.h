// A compiled graph on a GPU: its ops as kernels on one stream.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "cuda_device.h"
#include "cuda_weights.h"

namespace qllm::cuda {

std::unique_ptr<Plan> compile_plan(const DeviceInfo& device, const Graph& graph,
                                   std::shared_ptr<const CudaWeights> weights,
                                   const PlanLimits& limits);

}  // namespace qllm::cuda
