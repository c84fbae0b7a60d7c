// Several GPUs as one: weights cut over them, a plan that walks them side by side.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "communicator.h"
#include "cuda_plan.h"
#include "cuda_weights.h"

namespace qllm::cuda {

/// A rank's share each, in the order of ranks.
class TeamWeights final : public Weights {
 public:
  explicit TeamWeights(std::vector<std::shared_ptr<const CudaWeights>> ranks)
      : ranks_(std::move(ranks)) {}

  const std::vector<std::shared_ptr<const CudaWeights>>& ranks() const { return ranks_; }
  /// Of all ranks.
  int64_t bytes() const override;
  int64_t bytes_per_step() const override;
  std::string memory() const override { return "device"; }

 private:
  std::vector<std::shared_ptr<const CudaWeights>> ranks_;
};

/// `graph` is the whole one, as TeamWeights were cut from. Throws as cut_graph.
std::unique_ptr<Plan> compile_team_plan(const std::vector<DeviceInfo>& devices,
                                        std::shared_ptr<Communicator> communicator,
                                        const Graph& graph, const TeamWeights& weights,
                                        const PlanLimits& limits);

}  // namespace qllm::cuda
