// A compiled graph on a GPU: its ops as kernels on one stream.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "activations.h"
#include "attention_step.h"
#include "backend/backend.h"
#include "backend/batch.h"
#include "communicator.h"
#include "cuda_device.h"
#include "cuda_kv_storage.h"
#include "cuda_weights.h"
#include "device_timers.h"
#include "kernels/deal.h"
#include "kernels/rows.h"
#include "linear_step.h"
#include "lt_gemm.h"
#include "step_upload.h"

namespace qllm::cuda {

/// Which part of a model's plan is made, where several GPUs share it (team_cut.h).
struct PlanRank {
  int rank = 0;
  int ranks = 1;
  std::vector<Deal> gathers;  // of each op; empty: one GPU does it all
  int64_t n_kv_heads = 0;     // of all ranks
};

/// The device of the calling thread is the plan's own, in all but execute(), which sets it.
class CudaPlan final : public Plan {
 public:
  CudaPlan(const DeviceInfo& device, const Graph& graph, std::shared_ptr<const CudaWeights> weights,
           const PlanLimits& limits, PlanRank team = {});

  const PlanLimits& limits() const override { return limits_; }
  void execute(const Batch& batch, std::span<float> logits) override;
  void set_recorder(StepRecorder* recorder) override;

  // What a plan of several ranks does instead of execute(), with each of them (team_plan.h). Stages
  // are equal in number and kind on all ranks.

  /// What goes to the device at the begin of a step. `entry_rows`: rows of another rank's
  /// entry_rows(); null: this one makes them.
  void begin(const Batch& batch, const float* entry_rows);
  const float* entry_rows() const { return entry_rows_.as<float>(); }
  /// Launches stages [from, ...) up to the next exchange or the end; returns where it stopped.
  size_t launch_from(size_t from);
  size_t stages() const { return stages_.size(); }
  /// Before, in and behind the exchange that stage `i` is: rows of it, values a rank.
  Communicator::Exchange begin_exchange(size_t i);
  int64_t exchange_values(size_t i) const;
  void end_exchange(size_t i);
  /// The result of the step to `out` (empty: another rank gives it), and the end of its timers.
  void end(const Batch& batch, std::span<float> out);

  std::vector<ProfileStage> stage_names() const;
  void set_track(StepRecorder* recorder, SpanTrack* track);

  // Compiles an op.
  void operator()(const InputOp& op) { entry_ = op.out; }
  void operator()(const EmbedOp& op) {
    entry_ = op.out;
    table_ = op.table;
  }
  void operator()(const RmsNormOp& op);
  void operator()(const LinearOp& op);
  void operator()(const RopeKvWriteOp& op);
  void operator()(const AttentionOp& op);
  void operator()(const SwiGluOp& op);
  void operator()(const SelectRowsOp& op);

 private:
  using Launch = std::function<void()>;
  /// Columns of a value that each rank has made, for all.
  struct Gather {
    ValueId value = kNone;
    Deal deal;
    bool in_rows = false;  // they lie in the value's rows, not in the rank's slot
  };
  /// What is timed as one: the kernels of an op, or a copy.
  struct Stage {
    Launch launch;
    ProfileStage name;
    std::optional<Gather> gather = {};  // an exchange
  };
  /// What a captured graph depends on.
  struct StepKind {
    int64_t n_tokens = 0;
    int64_t n_outputs = 0;
    int64_t max_length = 0;
    friend auto operator<=>(const StepKind&, const StepKind&) = default;
  };

  const LinearOp* fused_linear(size_t i) const;
  void make_linear_context();
  void make_host_rows();
  void make_slots();
  RowOutputs outputs_of(ValueId id);
  void quantize_if_wanted(ValueId id);
  int64_t rows(ValueId id) const {
    return graph_.value(id).rows == Rows::tokens ? step_.n_tokens : step_.n_outputs;
  }
  const float* inv_freq(const std::vector<float>& values);
  const CudaKvStorage& storage(const Batch& batch, const BatchSlice& slice) const;
  const CudaKvStorage& storage(const Batch& batch) const;
  void send(const Batch& batch, const float* entry_rows);
  void send_entry(const Batch& batch, const float* rows);
  void run(bool decode);
  /// As the op being compiled.
  void add_stage(Launch launch);
  /// Of something of its own, such as a quantization.
  void add_stage(Launch launch, const char* kind);
  void launch_all() {
    for (const Stage& stage : stages_) {
      stage.launch();
      timers_.lap(stream_);
    }
  }
  void fetch_result(const Batch& batch, std::span<float> out);

  /// How the result of the op being compiled is dealt out; unit 0: this device makes it all.
  Deal deal() const { return team_.gathers.empty() ? Deal{} : team_.gathers[op_]; }
  int64_t own_width(ValueId id, const Deal& deal) const;
  static bool in_place(const Deal& deal, int64_t rows) { return rows == 1 && deal.even(); }
  float* slot(const Deal& deal, int64_t rows) const;
  FloatRows own_rows(const FloatRows& all, ValueId id, const Deal& deal) const;
  void gather(ValueId id, const Deal& deal, bool in_rows);

  DeviceInfo device_;
  PlanRank team_;
  Graph graph_;
  std::shared_ptr<const CudaWeights> weights_;
  PlanLimits limits_;
  qllm::StepShape shape_;
  ValueForms forms_;
  Stream stream_;
  Activations activations_;
  StepUpload upload_;
  AttentionStep attention_;
  std::optional<LtGemm> gemm_;
  DeviceBuffer sums_;
  LinearContext linear_;
  std::vector<std::pair<std::vector<float>, DeviceBuffer>> inv_freqs_;
  DeviceBuffer slots_;      // of exchanges: [ranks, rows, columns of the largest share]
  ValueId entry_ = kNone;   // what comes from the host
  WeightId table_ = kNone;  // whose rows it is; kNone: the batch's inputs
  PinnedBuffer entry_rows_;
  PinnedBuffer result_rows_;
  size_t op_ = 0;                    // being compiled
  std::vector<std::string> labels_;  // of the ops
  std::vector<Stage> stages_;
  DeviceTimers timers_;
  std::map<StepKind, std::optional<CapturedGraph>> graphs_;  // empty: seen once
  StepKind step_;                                            // that runs
  KvGeometry kv_;                                            // likewise
};

}  // namespace qllm::cuda
