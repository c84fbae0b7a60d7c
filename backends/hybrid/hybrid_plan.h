// A step in two parts: the host's layers, then the device's.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/batch.h"

namespace qllm::hybrid {

/// The two plans and what they hand over.
struct HybridParts {
  std::unique_ptr<Plan> host;         // of the first part of a cut graph
  std::unique_ptr<Plan> device;       // of the second
  std::shared_ptr<float[]> residual;  // [max_tokens, width]: where the device reads it fastest
  int64_t width = 0;
  int32_t device_op = 0;  // the number that the second part's first op would have in the whole
};

class HybridPlan final : public Plan {
 public:
  /// `graph` is the whole one.
  HybridPlan(const Graph& graph, const PlanLimits& limits, HybridParts parts);

  void execute(const Batch& batch, std::span<float> logits) override;
  const PlanLimits& limits() const override { return limits_; }
  void set_recorder(StepRecorder* recorder) override;
  std::vector<double> part_seconds() const override { return {seconds_.begin(), seconds_.end()}; }

 private:
  StepShape shape_;
  PlanLimits limits_;
  HybridParts parts_;
  StepRecorder* recorder_ = nullptr;
  std::array<double, 2> seconds_ = {};  // of each part so far
};

}  // namespace qllm::hybrid
