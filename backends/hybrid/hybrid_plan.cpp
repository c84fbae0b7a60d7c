#include "hybrid/hybrid_plan.h"

#include <chrono>
#include <utility>

#include "core/error.h"
#include "hybrid/hybrid_storage.h"

namespace qllm::hybrid {
namespace {

/// Runs `f` and adds the seconds that it took.
template <typename F>
void timed(double* seconds, F f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  *seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

HybridPlan::HybridPlan(const Graph& graph, const PlanLimits& limits, HybridParts parts)
    : shape_(step_shape(graph)), limits_(limits), parts_(std::move(parts)) {}

void HybridPlan::set_recorder(StepRecorder* recorder) {
  recorder_ = recorder;
  parts_.host->set_recorder(recorder);
  if (recorder != nullptr) recorder->set_first_op(parts_.device_op);
  parts_.device->set_recorder(recorder);
  if (recorder != nullptr) recorder->set_first_op(0);
}

void HybridPlan::execute(const Batch& batch, std::span<float> logits) {
  require(batch.part == kWholeStep, ErrorCode::invalid_argument,
          "hybrid: a part of a step: a model is cut in two, not in more");
  check_batch(batch, limits_, shape_, static_cast<int64_t>(logits.size()));
  reserve_room(batch);
  const RecordedStep recorded(recorder_, step_of(batch));
  const std::span residual(parts_.residual.get(),
                           batch.tokens.size() * static_cast<size_t>(parts_.width));
  Batch host = batch;
  host.outputs = {};
  host.part = kHostPart;
  timed(&seconds_[kHostPart], [&] { parts_.host->execute(host, residual); });
  Batch device = batch;
  device.inputs = residual;
  device.part = kDevicePart;
  timed(&seconds_[kDevicePart], [&] { parts_.device->execute(device, logits); });
  advance(batch);
}

}  // namespace qllm::hybrid
