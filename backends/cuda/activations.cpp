#include "activations.h"

#include <algorithm>

#include "core/error.h"
#include "core/math.h"
#include "quant/packing.h"

namespace qllm::cuda {
namespace {

constexpr const char* kWhat = "activations";

}  // namespace

ValueForms::ValueForms(const Graph& graph, const CudaWeights& weights)
    : forms_(graph.values.size()) {
  for (const Op& op : graph.ops) {
    const auto* linear = std::get_if<LinearOp>(&op);
    for (const ValueId in : inputs_of(op)) {
      Form& form = forms_[static_cast<size_t>(in)];
      if (linear == nullptr || linear->in != in) {
        form.floats = true;
        continue;
      }
      const DeviceLinear& w = weights.linear(linear->weight);
      require(form.ld == 0 || form.group == w.group, ErrorCode::unsupported,
              "cuda: {} is read in groups of {} and of {}", graph.value(in).name, form.group,
              w.group);
      form.group = w.group;
      form.ld = std::max(form.ld, w.k_padded);
    }
  }
  forms_[static_cast<size_t>(graph.logits)].floats = true;
}

Activations::Activations(const Graph& graph, const ValueForms& forms, const PlanLimits& limits)
    : graph_(graph), forms_(forms), limits_(limits), plan_(plan_buffers(graph)) {
  floats_.resize(plan_.buffers.size());
  quantized_.resize(plan_.buffers.size());
  for (size_t v = 0; v < graph.values.size(); ++v) {
    const auto id = static_cast<ValueId>(v);
    if (forms.wants_quantized(id)) {
      scratch_ld_ = std::max(scratch_ld_, round_up(graph.value(id).width, kBlockN));
    }
  }
}

int64_t Activations::rows_of(Rows rows) const {
  return std::max<int64_t>(rows == Rows::tokens ? limits_.max_tokens : limits_.max_outputs, 1);
}

int64_t Activations::max_rows(ValueId id) const { return rows_of(graph_.value(id).rows); }

FloatRows Activations::floats(ValueId id) {
  const BufferPlan::Buffer& b = plan_.buffers[buffer(id)];
  DeviceBuffer& memory = floats_[buffer(id)];
  if (memory.data() == nullptr) {
    const int64_t values = rows_of(b.rows) * round_up(b.width, kBlockN);
    memory = DeviceBuffer(values * static_cast<int64_t>(sizeof(float)), kWhat);
  }
  const int64_t width = graph_.value(id).width;
  return {memory.as<float>(), round_up(width, kBlockN), width};
}

QuantRows Activations::quantized(ValueId id) {
  const BufferPlan::Buffer& b = plan_.buffers[buffer(id)];
  Quantized& memory = quantized_[buffer(id)];
  if (memory.codes.data() == nullptr) {
    // For any value of the buffer, however its readers pad it; groups have 32 inputs at least.
    const int64_t rows = rows_of(b.rows), ld = round_up(b.width, kSuperBlock);
    memory.codes = DeviceBuffer(rows * ld, kWhat);
    memory.scale = DeviceBuffer(rows * ld / 32 * static_cast<int64_t>(sizeof(float)), kWhat);
    memory.sum = DeviceBuffer(rows * ld / 32 * static_cast<int64_t>(sizeof(int32_t)), kWhat);
  }
  return {memory.codes.as<int8_t>(), memory.scale.as<float>(), memory.sum.as<int32_t>(),
          forms_.ld(id), forms_.group(id)};
}

float* Activations::scratch() {
  if (scratch_.data() == nullptr) {
    const int64_t rows = std::max(limits_.max_tokens, limits_.max_outputs);
    scratch_ = DeviceBuffer(rows * scratch_ld_ * static_cast<int64_t>(sizeof(float)), kWhat);
  }
  return scratch_.as<float>();
}

}  // namespace qllm::cuda
