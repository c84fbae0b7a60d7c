// The memory of a plan's values on the device: float rows by liveness, and beside each the
// quantized form where linears read it.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "cuda_device.h"
#include "cuda_weights.h"
#include "graph/liveness.h"
#include "step_tables.h"

namespace qllm::cuda {

/// Which forms of each value its readers want.
class ValueForms {
 public:
  ValueForms(const Graph& graph, const CudaWeights& weights);

  bool wants_floats(ValueId id) const { return forms_[static_cast<size_t>(id)].floats; }
  bool wants_quantized(ValueId id) const { return forms_[static_cast<size_t>(id)].ld != 0; }
  int64_t group(ValueId id) const { return forms_[static_cast<size_t>(id)].group; }
  int64_t ld(ValueId id) const { return forms_[static_cast<size_t>(id)].ld; }

 private:
  struct Form {
    bool floats = false;
    int64_t group = 0;
    int64_t ld = 0;  // codes of a quantized row; 0: not wanted
  };
  std::vector<Form> forms_;
};

class Activations {
 public:
  Activations(const Graph& graph, const ValueForms& forms, const PlanLimits& limits);

  /// Memory is taken when a value is first asked for.
  FloatRows floats(ValueId id);
  QuantRows quantized(ValueId id);
  /// [rows, ld] floats that nobody reads: what rows are made in before they are quantized.
  float* scratch();
  int64_t scratch_ld() const { return scratch_ld_; }
  int64_t max_rows(ValueId id) const;

 private:
  struct Quantized {
    DeviceBuffer codes, scale, sum;
  };
  size_t buffer(ValueId id) const {
    return static_cast<size_t>(plan_.buffer_of[static_cast<size_t>(id)]);
  }
  int64_t rows_of(Rows rows) const;

  const Graph& graph_;
  const ValueForms& forms_;
  PlanLimits limits_;
  BufferPlan plan_;
  std::vector<DeviceBuffer> floats_;
  std::vector<Quantized> quantized_;
  DeviceBuffer scratch_;
  int64_t scratch_ld_ = 0;
};

}  // namespace qllm::cuda
