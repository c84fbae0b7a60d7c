#include "cuda_plan.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "activations.h"
#include "attention_step.h"
#include "backend/batch.h"
#include "core/error.h"
#include "core/math.h"
#include "cuda_kv_storage.h"
#include "device_timers.h"
#include "kernels/rope_kv_write.h"
#include "kernels/rows.h"
#include "linear_step.h"
#include "lt_gemm.h"
#include "step_upload.h"

namespace qllm::cuda {
namespace {

/// What a captured graph depends on.
struct StepKind {
  int64_t n_tokens = 0;
  int64_t n_outputs = 0;
  int64_t max_length = 0;
  friend auto operator<=>(const StepKind&, const StepKind&) = default;
};

class CudaPlan final : public Plan {
 public:
  CudaPlan(const DeviceInfo& device, const Graph& graph, std::shared_ptr<const CudaWeights> weights,
           const PlanLimits& limits)
      : device_(device),
        graph_(graph),
        weights_(std::move(weights)),
        limits_(limits),
        shape_(step_shape(graph_)),
        forms_(graph_, *weights_),
        activations_(graph_, forms_, limits_),
        upload_(limits_),
        attention_(graph_, limits_, device_.multiprocessors),
        labels_(op_labels(graph_)) {
    make_linear_context();
    for (op_ = 0; op_ < graph_.ops.size(); ++op_) std::visit(*this, graph_.ops[op_]);
    make_host_rows();
  }

  const PlanLimits& limits() const override { return limits_; }
  void execute(const Batch& batch, std::span<float> logits) override;
  void set_recorder(StepRecorder* recorder) override;

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
  /// What is timed as one: the kernels of an op, or a copy.
  struct Stage {
    Launch launch;
    ProfileStage name;
  };

  const LinearOp* fused_linear(size_t i) const;
  void make_linear_context();
  void make_host_rows();
  RowOutputs outputs_of(ValueId id);
  void quantize_if_wanted(ValueId id);
  int64_t rows(ValueId id) const {
    return graph_.value(id).rows == Rows::tokens ? step_.n_tokens : step_.n_outputs;
  }
  const float* inv_freq(const std::vector<float>& values);
  const CudaKvStorage& storage(const Batch& batch) const;
  void send(const Batch& batch);
  void send_entry(const Batch& batch);
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

  DeviceInfo device_;
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

void CudaPlan::make_linear_context() {
  linear_.multiprocessors = device_.multiprocessors;
  int64_t sums = 0;
  for (const Op& op : graph_.ops) {
    const auto* linear = std::get_if<LinearOp>(&op);
    if (linear == nullptr) continue;
    sums = std::max(sums,
                    gemm_sums(weights_->linear(linear->weight), activations_.max_rows(linear->in)));
  }
  if (sums == 0) return;
  gemm_.emplace(GemmKind::int8);
  sums_ = DeviceBuffer(sums * static_cast<int64_t>(sizeof(int32_t)), "int32 sums");
  linear_.gemm = &*gemm_;
  linear_.sums = sums_.as<int32_t>();
}

void CudaPlan::make_host_rows() {
  constexpr int64_t kMostBytes = int64_t{64} << 20;
  const FloatRows in = activations_.floats(entry_), out = activations_.floats(graph_.logits);
  constexpr int64_t kFloat = sizeof(float);
  entry_rows_ = PinnedBuffer(activations_.max_rows(entry_) * in.ld * kFloat);
  std::memset(entry_rows_.data(), 0, static_cast<size_t>(entry_rows_.bytes()));
  const int64_t wanted = activations_.max_rows(graph_.logits) * out.ld * kFloat;
  result_rows_ = PinnedBuffer(std::max(std::min(wanted, kMostBytes), out.ld * kFloat));
}

/// The forms of a value that its readers want, made by one kernel.
RowOutputs CudaPlan::outputs_of(ValueId id) {
  RowOutputs out;
  if (forms_.wants_floats(id)) out.floats = activations_.floats(id);
  if (!forms_.wants_quantized(id)) return out;
  out.quantized = activations_.quantized(id);
  out.scratch = activations_.scratch();
  out.scratch_ld = activations_.scratch_ld();
  return out;
}

void CudaPlan::add_stage(Launch launch) {
  const auto op = static_cast<int32_t>(op_);
  stages_.push_back({std::move(launch), stage_of_ops(graph_, labels_, op, op + 1)});
  const auto* linear = std::get_if<LinearOp>(&graph_.ops[op_]);
  if (linear == nullptr) return;
  int64_t bytes = 0;
  for (const DeviceBuffer& memory : weights_->linear(linear->weight).memory) {
    bytes += memory.bytes();
  }
  stages_.back().name.track_bytes = {bytes};
}

void CudaPlan::add_stage(Launch launch, const char* kind) {
  stages_.push_back({std::move(launch), {labels_[op_] + "." + kind, kind}});
}

void CudaPlan::quantize_if_wanted(ValueId id) {
  if (!forms_.wants_quantized(id)) return;
  const auto quantize = [this, id, in = activations_.floats(id), out = activations_.quantized(id)] {
    quantize_rows(in, rows(id), out, stream_.get());
  };
  add_stage(quantize, "quantize");
}

void CudaPlan::operator()(const RmsNormOp& op) {
  const float* gain = op.gain != kNone ? weights_->vector(op.gain) : nullptr;
  add_stage([this, op, gain, in = activations_.floats(op.in), out = outputs_of(op.out)] {
    rms_norm_rows(in, gain, op.eps, rows(op.out), out, stream_.get());
  });
}

void CudaPlan::operator()(const LinearOp& op) {
  LinearTarget y;
  y.floats = activations_.floats(op.out);
  if (op.bias != kNone) y.bias = weights_->vector(op.bias);
  if (op.residual != kNone) y.residual = activations_.floats(op.residual).data;
  const DeviceLinear& w = weights_->linear(op.weight);
  const bool swiglu = op_ + 1 < graph_.ops.size() && fused_linear(op_ + 1) != nullptr;
  add_stage([this, op, y, &w, swiglu, x = activations_.quantized(op.in)] {
    const int64_t m = rows(op.out);
    if (swiglu && leaves_sums(w, m, linear_)) {
      run_sums(w, x, m, linear_, stream_);
    } else {
      run_linear(w, x, m, y, linear_, stream_);
    }
  });
  quantize_if_wanted(op.out);
}

/// The linear before op `i` where that is the SwiGLU which alone reads it.
const LinearOp* CudaPlan::fused_linear(size_t i) const {
  const auto* swiglu = std::get_if<SwiGluOp>(&graph_.ops[i]);
  const auto* linear = i > 0 ? std::get_if<LinearOp>(&graph_.ops[i - 1]) : nullptr;
  if (swiglu == nullptr || linear == nullptr || linear->out != swiglu->gate_up ||
      linear->bias != kNone || linear->residual != kNone || linear->out == graph_.logits) {
    return nullptr;
  }
  int64_t readers = 0;
  for (const Op& op : graph_.ops) {
    for (const ValueId in : inputs_of(op)) readers += in == linear->out ? 1 : 0;
  }
  return readers == 1 ? linear : nullptr;
}

const float* CudaPlan::inv_freq(const std::vector<float>& values) {
  for (const auto& [known, memory] : inv_freqs_) {
    if (known == values) return memory.as<float>();
  }
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  auto& [known, memory] = inv_freqs_.emplace_back(values, DeviceBuffer(bytes, "RoPE"));
  copy_to_device(memory.data(), known.data(), bytes, stream_);
  stream_.synchronize();
  return memory.as<float>();
}

void CudaPlan::operator()(const RopeKvWriteOp& op) {
  RopeShape shape;
  shape.layer = op.layer;
  shape.n_heads = op.n_heads;
  shape.style = op.style;
  shape.half = static_cast<int32_t>(op.inv_freq.size());
  shape.inv_freq = inv_freq(op.inv_freq);
  add_stage([this, op, shape, qkv = activations_.floats(op.qkv),
             q = activations_.floats(op.q)]() mutable {
    shape.kv = kv_;
    rope_kv_write(shape, qkv, q, upload_.tables(), step_.n_tokens, stream_.get());
  });
  quantize_if_wanted(op.q);
}

void CudaPlan::operator()(const AttentionOp& op) {
  add_stage([this, op, q = activations_.floats(op.q), out = activations_.floats(op.out)] {
    attention_.run(op, q, out, upload_.tables(), stream_);
  });
  quantize_if_wanted(op.out);
}

void CudaPlan::operator()(const SwiGluOp& op) {
  const int64_t d_ff = graph_.value(op.out).width;
  const LinearOp* const linear = fused_linear(op_);
  const DeviceLinear* const w = linear != nullptr ? &weights_->linear(linear->weight) : nullptr;
  const float* const x_scale = w != nullptr ? activations_.quantized(linear->in).scale : nullptr;
  add_stage(
      [this, op, d_ff, w, x_scale, in = activations_.floats(op.gate_up), out = outputs_of(op.out)] {
        const int64_t m = rows(op.out);
        if (w != nullptr && leaves_sums(*w, m, linear_)) {
          const Int8Run& run = w->int8[0].first;
          swiglu_sums({linear_.sums, run.n, x_scale, run.scale}, d_ff, op.hadamard != 0, m, out,
                      stream_.get());
        } else {
          swiglu_rows(in, d_ff, op.hadamard != 0, m, out, stream_.get());
        }
      });
}

void CudaPlan::operator()(const SelectRowsOp& op) {
  add_stage([this, op, in = activations_.floats(op.in), out = activations_.floats(op.out)] {
    select_rows(in, upload_.tables().output_rows, step_.n_outputs, out, stream_.get());
  });
  quantize_if_wanted(op.out);
}

const CudaKvStorage& CudaPlan::storage(const Batch& batch) const {
  const CudaKvStorage& first = storage_of<CudaKvStorage>(batch, *batch.slices[0].kv, "cuda");
  for (const BatchSlice& slice : batch.slices) {
    const auto& other = storage_of<CudaKvStorage>(batch, *slice.kv, "cuda");
    require(other.geometry() == first.geometry(), ErrorCode::invalid_argument,
            "cuda: KV caches of two formats in one step");
  }
  return first;
}

void CudaPlan::send_entry(const Batch& batch) {
  const FloatRows rows = activations_.floats(entry_);
  auto* const host = entry_rows_.as<float>();
  for (size_t t = 0; t < batch.tokens.size(); ++t) {
    float* row = host + static_cast<int64_t>(t) * rows.ld;
    if (table_ != kNone) {
      read_weight_rows(weights_->source(), graph_.weight(table_), batch.tokens[t], 1, row);
    } else {
      const float* in = batch.inputs.data() + static_cast<int64_t>(t) * rows.width;
      std::copy(in, in + rows.width, row);
    }
  }
  const auto count = static_cast<int64_t>(batch.tokens.size());
  copy_to_device(rows.data, host, count * rows.ld * static_cast<int64_t>(sizeof(float)), stream_);
}

/// A decode step of a kind that has run before is captured and launched as one.
void CudaPlan::run(bool decode) {
  const bool timed = timers_.recorder() != nullptr;  // op by op
  if (!decode || timed || step_.n_tokens > kTileTokens) return launch_all();
  const auto [known, is_new] = graphs_.try_emplace(step_);
  if (is_new) return launch_all();  // what is made when it first runs must not be captured
  if (!known->second) {
    known->second.emplace(CapturedGraph::capture(stream_, [this] { launch_all(); }));
  }
  known->second->launch(stream_);
}

void CudaPlan::fetch_result(const Batch& batch, std::span<float> out) {
  const FloatRows result = activations_.floats(graph_.logits);
  const int64_t count = result_size(batch, shape_) / std::max<int64_t>(result.width, 1);
  const int64_t row_bytes = result.ld * static_cast<int64_t>(sizeof(float));
  const int64_t most = result_rows_.bytes() / row_bytes;
  for (int64_t from = 0; from < count; from += most) {
    const int64_t n = std::min(most, count - from);
    copy_to_host(result_rows_.data(), result.data + from * result.ld, n * row_bytes, stream_);
    stream_.synchronize();
    for (int64_t r = 0; r < n; ++r) {
      const float* row = result_rows_.as<float>() + r * result.ld;
      std::copy(row, row + result.width, out.begin() + (from + r) * result.width);
    }
  }
  stream_.synchronize();
}

void CudaPlan::set_recorder(StepRecorder* recorder) {
  std::vector<ProfileStage> names = {{"to the device", "copy"}};
  for (const Stage& stage : stages_) names.push_back(stage.name);
  names.push_back({"from the device", "copy"});
  timers_.set(recorder, device_, std::move(names));
}

/// The tables and rows of a step go to the device.
void CudaPlan::send(const Batch& batch) {
  const KvGeometry& kv = storage(batch).geometry();
  const auto address = [&](const BatchSlice& slice, int32_t block) {
    return storage_of<CudaKvStorage>(batch, *slice.kv, "cuda").address(block);
  };
  bool stale = upload_.send(batch, stream_, address);
  stale = attention_.prepare(batch, kv, stream_) || stale;
  if (stale || !(kv == kv_)) graphs_.clear();  // they hold addresses and the cache's shape
  kv_ = kv;
  step_ = {static_cast<int64_t>(batch.tokens.size()), static_cast<int64_t>(batch.outputs.size()),
           attention_.max_length()};
  send_entry(batch);
}

void CudaPlan::execute(const Batch& batch, std::span<float> logits) {
  check_batch(batch, limits_, shape_, static_cast<int64_t>(logits.size()));
  check(cudaSetDevice(device_.index), "cudaSetDevice");
  reserve_room(batch);
  const RecordedStep recorded(timers_.recorder(), step_of(batch));
  timers_.begin(stream_);
  send(batch);
  timers_.lap(stream_);
  run(attention_.only_decode());
  fetch_result(batch, logits);
  timers_.lap(stream_);
  if (timers_.recorder() != nullptr) stream_.synchronize();
  timers_.finish();
  advance(batch);
}

}  // namespace

std::unique_ptr<Plan> compile_plan(const DeviceInfo& device, const Graph& graph,
                                   std::shared_ptr<const CudaWeights> weights,
                                   const PlanLimits& limits) {
  return std::make_unique<CudaPlan>(device, graph, std::move(weights), limits);
}

}  // namespace qllm::cuda
