#include "plan.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "backend/batch.h"
#include "core/error.h"
#include "core/math.h"
#include "fusion.h"
#include "graph/liveness.h"
#include "kernels/dispatch.h"
#include "onednn/onednn_tiles.h"
#include "ops/ops.h"
#include "plan_timers.h"
#include "quant/packing.h"

namespace qllm::cpu {
namespace {

/// What all workers run, and what it is called.
struct Stage {
  std::unique_ptr<Step> step;
  ProfileStage name;  // no label: it takes no time of its own
};

/// The quantized form of a value that the linears which read it want.
struct QuantForm {
  int64_t group = 0;  // 0: one scale per token
  int64_t ld = 0;     // values of a padded row; 0: not wanted
};

/// Which forms of each value its readers want.
struct Uses {
  std::vector<bool> as_float;
  std::vector<QuantForm> quantized;

  Uses(const Graph& graph, const CpuWeights& weights)
      : as_float(graph.values.size()), quantized(graph.values.size()) {
    for (const Op& op : graph.ops) {
      const auto* linear = std::get_if<LinearOp>(&op);
      for (ValueId in : inputs_of(op)) {
        if (linear != nullptr && linear->in == in) {
          note(graph, weights.linear(linear->weight), in);
        } else {
          as_float[static_cast<size_t>(in)] = true;
        }
      }
    }
    as_float[static_cast<size_t>(graph.logits)] = true;
  }

 private:
  void note(const Graph& graph, const ShardedLinear& linear, ValueId in) {
    QuantForm& form = quantized[static_cast<size_t>(in)];
    require(form.ld == 0 || form.group == linear.group, ErrorCode::unsupported,
            "cpu: {} is read in groups of {} and of {}", graph.value(in).name, form.group,
            linear.group);
    form = {linear.group, std::max(form.ld, linear.k_padded)};
  }
};

/// The memory of all values: float buffers by liveness, and beside each the quantized form where
/// readers want it. Made when first asked for.
class Buffers {
 public:
  Buffers(const Graph& graph, const Stages& stages, const PlanLimits& limits,
          const CpuContext& context)
      : graph_(graph), plan_(plan_buffers(graph, stages)), limits_(limits), context_(context) {
    floats_.resize(plan_.buffers.size());
    quants_.resize(plan_.buffers.size());
  }

  FloatBuffer floats(ValueId id) {
    const Value& v = graph_.value(id);
    PlacedBuffer& memory = floats_[index(id)];
    if (memory.data() == nullptr) {
      PlacementOptions options;
      options.large_pages = context_.large_pages;
      memory = PlacedBuffer(values_of(id) * sizeof(float), options);
    }
    return {memory.as<float>(), v.width, round_up(v.width, kBlockN), v.rows};
  }

  /// `own`: the workers may each make a copy of few rows.
  QuantBuffer quantized(ValueId id, const QuantForm& form, bool own) {
    const Value& v = graph_.value(id);
    Quant& q = quants_[index(id)];
    make_room(id, form.group != 0, &q);
    if (q.own.empty()) {
      for (const WorkerSlot& slot : context_.topology->workers()) {
        PlacementOptions options;
        options.topology = context_.topology;
        options.slot = slot;
        q.areas.emplace_back(kOwnBytes, options);
        q.own.push_back(q.areas.back().as<std::byte>());
      }
    }
    QuantBuffer out;
    out.shared.ld = form.ld;
    out.shared.group = form.group;
    out.shared.data = q.data.as<uint8_t>();
    out.shared.scale = form.group != 0 ? q.group_scale.data() : q.scale.data();
    out.shared.sum = q.group_sum.data();
    out.own = own ? q.own.data() : nullptr;
    out.width = v.width;
    out.rows = v.rows;
    return out;
  }

 private:
  struct Quant {
    PlacedBuffer data;
    std::vector<float> scale;
    std::vector<float> group_scale;  // empty until a value of the buffer is read in groups
    std::vector<int32_t> group_sum;
    std::vector<PlacedBuffer> areas;
    std::vector<std::byte*> own;
  };
  /// For any value of the buffer, however its reader pads it; once, so that addresses stay.
  void make_room(ValueId id, bool in_groups, Quant* q) const {
    const BufferPlan::Buffer& b = plan_.buffers[index(id)];
    const auto rows = static_cast<size_t>(max_rows(b.rows));
    const auto ld = static_cast<size_t>(round_up(b.width, kSuperBlock));
    if (q->data.data() == nullptr) {
      q->data = PlacedBuffer(rows * ld, {});
      q->scale.resize(rows);
    }
    if (in_groups && q->group_scale.empty()) {
      q->group_scale.resize(rows * ld / 32);
      q->group_sum.resize(q->group_scale.size());
    }
  }
  size_t index(ValueId id) const {
    return static_cast<size_t>(plan_.buffer_of[static_cast<size_t>(id)]);
  }
  int64_t max_rows(Rows rows) const {
    return std::max<int64_t>(rows == Rows::tokens ? limits_.max_tokens : limits_.max_outputs, 1);
  }
  size_t values_of(ValueId id) const {
    const BufferPlan::Buffer& b = plan_.buffers[index(id)];
    return static_cast<size_t>(max_rows(b.rows) * round_up(b.width, kBlockN));
  }

  const Graph& graph_;
  BufferPlan plan_;
  PlanLimits limits_;
  const CpuContext& context_;
  std::vector<PlacedBuffer> floats_;
  std::deque<Quant> quants_;  // addresses stay
};

class CpuPlan final : public Plan {
 public:
  CpuPlan(const CpuContext& context, const Graph& graph, std::shared_ptr<const CpuWeights> weights,
          const PlanLimits& limits)
      : context_(context),
        graph_(graph),
        weights_(std::move(weights)),
        limits_(limits),
        shape_(step_shape(graph)),
        uses_(graph_, *weights_),
        fusion_(find_fusion(graph_)),
        buffers_(graph_, fusion_.stages, limits_, context_),
        scratch_(*context.topology),
        labels_(op_labels(graph_)) {
    const int64_t onednn_from = onednn_tokens_from(context.isa);
    if (context.onednn && limits.max_tokens >= onednn_from) {
      onednn_.emplace(context.pool->count(), onednn_from, limits.max_tokens);
    }
    state_.position.resize(static_cast<size_t>(limits.max_tokens));
    state_.slice_of.resize(static_cast<size_t>(limits.max_tokens));
    state_.slices.reserve(static_cast<size_t>(limits.max_tokens));
    may_be_own_.assign(graph_.values.size(), false);
    for (op_ = 0; op_ < graph_.ops.size(); ++op_) std::visit(*this, graph_.ops[op_]);
  }

  const PlanLimits& limits() const override { return limits_; }
  void execute(const Batch& batch, std::span<float> logits) override;
  void set_recorder(StepRecorder* recorder) override;

  void operator()(const InputOp& op);
  void operator()(const EmbedOp& op);
  void operator()(const RmsNormOp& op);
  void operator()(const LinearOp& op);
  void operator()(const RopeKvWriteOp& op);
  void operator()(const AttentionOp& op);
  void operator()(const SwiGluOp& op);
  void operator()(const SelectRowsOp& op);

 private:
  bool wants_float(ValueId id) const { return uses_.as_float[static_cast<size_t>(id)]; }
  bool wants_quantized(ValueId id) const { return form_of(id).ld != 0; }
  const QuantForm& form_of(ValueId id) const { return uses_.quantized[static_cast<size_t>(id)]; }
  /// A quantized value may be each worker's own unless its maker also writes floats.
  QuantBuffer quantized(ValueId id) {
    return buffers_.quantized(id, form_of(id), may_be_own_[static_cast<size_t>(id)]);
  }
  void quantize_if_wanted(ValueId id);
  /// Appends what runs ops from the one being compiled to `last`.
  ProfileStage& add(std::unique_ptr<Step> step) { return add(std::move(step), op_, op_); }
  ProfileStage& add(std::unique_ptr<Step> step, size_t first, size_t last);
  /// Appends something that no op of the graph stands for.
  void add_own(std::unique_ptr<Step> step, const char* name);
  const Op& next_op() const { return graph_.ops[op_ + 1]; }
  bool is_follower() const { return op_ > 0 && fusion_.has_follower(op_ - 1); }
  RopeTable* rope_table(const std::vector<float>& inv_freq);
  AttentionSchedule* attention_schedule(const AttentionOp& op);
  void begin(const Batch& batch);
  void take_inputs(const Batch& batch);
  void gather_embeddings(const Batch& batch);
  static void run_stages(void* plan, const Worker& of_pool) noexcept;

  CpuContext context_;
  Graph graph_;
  std::shared_ptr<const CpuWeights> weights_;
  PlanLimits limits_;
  StepShape shape_;
  Uses uses_;
  Fusion fusion_;
  Buffers buffers_;
  Scratch scratch_;
  std::vector<std::string> labels_;  // of the ops
  std::optional<OnednnTiles> onednn_;
  std::deque<RopeTable> rope_tables_;        // addresses stay
  std::deque<AttentionSchedule> schedules_;  // likewise
  ValueId input_ = kNone;
  std::vector<EmbedOp> embeds_;
  std::vector<bool> may_be_own_;  // by value: whether workers may quantize it for themselves
  size_t op_ = 0;                 // being compiled
  std::vector<Stage> stages_;
  StepState state_;
  ProfileStage entry_;  // where the rows of a step come from
  PlanTimers timers_;
};

ProfileStage& CpuPlan::add(std::unique_ptr<Step> step, size_t first, size_t last) {
  stages_.push_back({std::move(step), stage_of_ops(graph_, labels_, static_cast<int32_t>(first),
                                                   static_cast<int32_t>(last) + 1)});
  return stages_.back().name;
}

void CpuPlan::add_own(std::unique_ptr<Step> step, const char* name) {
  stages_.push_back({std::move(step), {name, name}});
}

void CpuPlan::quantize_if_wanted(ValueId id) {
  if (!wants_quantized(id)) return;
  may_be_own_[static_cast<size_t>(id)] = true;
  const size_t maker = output_of(graph_.ops[op_]) == id ? op_ : op_ + 1;  // a SwiGLU that follows
  ProfileStage& name =
      add(make_quantize(*context_.vec, buffers_.floats(id), quantized(id)), maker, maker);
  name.label += ".quantize";
  name.kind = "quantize";
}

void CpuPlan::operator()(const InputOp& op) {
  input_ = op.out;
  entry_ = {labels_[op_], op_kind(graph_.ops[op_])};  // another part's graph has the op
  quantize_if_wanted(op.out);
}

void CpuPlan::operator()(const EmbedOp& op) {
  embeds_.push_back(op);
  entry_ = stage_of_ops(graph_, labels_, static_cast<int32_t>(op_), static_cast<int32_t>(op_) + 1);
}

void CpuPlan::operator()(const RmsNormOp& op) {
  may_be_own_[static_cast<size_t>(op.out)] = !wants_float(op.out);
  const FloatBuffer out = wants_float(op.out) ? buffers_.floats(op.out) : FloatBuffer{};
  const QuantBuffer q = wants_quantized(op.out) ? quantized(op.out) : QuantBuffer{};
  const float* gain = op.gain != kNone ? weights_->vector(op.gain) : nullptr;
  add(make_rms_norm(*context_.vec, buffers_.floats(op.in), gain, op.eps, out, q, scratch_));
}

void CpuPlan::operator()(const LinearOp& op) {
  LinearStepArgs args;
  args.vec = context_.vec;
  args.isa = context_.isa;
  args.weights = &weights_->linear(op.weight);
  if (op.bias != kNone) args.bias = weights_->vector(op.bias);
  args.in = quantized(op.in);
  if (op.residual != kNone) args.residual = buffers_.floats(op.residual);
  const bool followed = fusion_.has_follower(op_);
  if (followed) args.swiglu = std::get_if<SwiGluOp>(&next_op());
  args.meets = !followed || args.swiglu != nullptr;
  const ValueId out = args.swiglu != nullptr ? args.swiglu->out : op.out;
  args.out = buffers_.floats(out);
  if (onednn_) args.onednn = &*onednn_;
  args.max_rows = args.in.rows == Rows::tokens ? limits_.max_tokens : limits_.max_outputs;
  ProfileStage& name =
      add(make_linear(args, scratch_), op_, args.swiglu != nullptr ? op_ + 1 : op_);
  for (const Shard& shard : args.weights->shards) name.track_bytes.push_back(shard.bytes());
  quantize_if_wanted(out);
}

RopeTable* CpuPlan::rope_table(const std::vector<float>& inv_freq) {
  for (RopeTable& table : rope_tables_) {
    if (table.inv_freq == inv_freq) return &table;
  }
  rope_tables_.emplace_back();
  RopeTable& table = rope_tables_.back();
  table.inv_freq = inv_freq;
  table.cos.resize(inv_freq.size() * static_cast<size_t>(limits_.max_tokens));
  table.sin.resize(table.cos.size());
  add_own(make_rope_table(&table), "rope_table");
  return &table;
}

void CpuPlan::operator()(const RopeKvWriteOp& op) {
  const ShardedLinear* shards = nullptr;
  if (is_follower()) {
    shards = &weights_->linear(std::get<LinearOp>(graph_.ops[op_ - 1]).weight);
  }
  const RopeTable* table = rope_table(op.inv_freq);  // stands before
  add(make_rope_kv_write(*context_.vec, op, table, buffers_.floats(op.qkv), buffers_.floats(op.q),
                         shards, scratch_));
  quantize_if_wanted(op.q);
}

AttentionSchedule* CpuPlan::attention_schedule(const AttentionOp& op) {
  const int64_t group = op.n_heads / op.n_kv_heads;
  for (AttentionSchedule& schedule : schedules_) {
    if (schedule.group() == group && schedule.window() == op.window) return &schedule;
  }
  schedules_.emplace_back(attention_shape(op), op.window);
  add_own(make_attention_schedule(&schedules_.back(), context_.pool->count()), "");
  return &schedules_.back();
}

void CpuPlan::operator()(const AttentionOp& op) {
  const AttentionSchedule* schedule = attention_schedule(op);
  add(make_attention(attend_table(context_.isa), op, schedule, buffers_.floats(op.q),
                     buffers_.floats(op.out), scratch_));
  quantize_if_wanted(op.out);
}

void CpuPlan::operator()(const SwiGluOp& op) {
  if (is_follower()) return;  // the linear did it
  const FloatBuffer out = buffers_.floats(op.out);
  add(make_swiglu(*context_.vec, op, buffers_.floats(op.gate_up), out));
  quantize_if_wanted(op.out);
}

void CpuPlan::operator()(const SelectRowsOp& op) {
  add(make_select_rows(buffers_.floats(op.in), buffers_.floats(op.out)));
  quantize_if_wanted(op.out);
}

void CpuPlan::begin(const Batch& batch) {
  state_.n_tokens = static_cast<int64_t>(batch.tokens.size());
  state_.n_outputs = static_cast<int64_t>(batch.outputs.size());
  state_.outputs = batch.outputs;
  state_.slices.clear();
  for (const BatchSlice& slice : batch.slices) {
    const KvCache& kv = *slice.kv;
    const auto* storage = &storage_of<const CpuKvStorage>(batch, kv, "cpu");
    for (int64_t i = 0; i < slice.count; ++i) {
      const auto t = static_cast<size_t>(slice.first + i);
      state_.position[t] = kv.length() + i;
      state_.slice_of[t] = static_cast<int32_t>(state_.slices.size());
    }
    state_.slices.push_back(
        {storage, kv.blocks().data(), kv.length(), slice.first, slice.count, kv.capacity()});
  }
  for (const Stage& stage : stages_) stage.step->prepare(state_);
}

void CpuPlan::take_inputs(const Batch& batch) {
  if (input_ == kNone) return;
  const FloatBuffer out = buffers_.floats(input_);
  const float* in = batch.inputs.data();
  for (int64_t t = 0; t < state_.n_tokens; ++t, in += out.width) {
    std::copy(in, in + out.width, out.row(t));
  }
}

void CpuPlan::gather_embeddings(const Batch& batch) {
  for (const EmbedOp& op : embeds_) {
    const FloatBuffer out = buffers_.floats(op.out);
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
      read_weight_rows(weights_->source(), graph_.weight(op.table), batch.tokens[t], 1,
                       out.row(static_cast<int64_t>(t)));
    }
  }
}

void CpuPlan::set_recorder(StepRecorder* recorder) {
  timers_.clear();
  if (recorder == nullptr) return;
  std::vector<ProfileStage> names;
  for (const Stage& stage : stages_) names.push_back(stage.name);
  timers_.set(recorder, context_.pool->count(), std::move(names), entry_);
}

void CpuPlan::run_stages(void* plan, const Worker& of_pool) noexcept {
  auto& self = *static_cast<CpuPlan*>(plan);
  Worker worker = of_pool;
  worker.spans = self.timers_.worker(worker.index);
  int32_t index = 0;
  for (const Stage& stage : self.stages_) {
    if (worker.spans != nullptr) worker.spans->set_stage(index++);
    stage.step->run(self.state_, worker);
    if (stage.step->meets(self.state_)) {
      worker.meet();
    } else if (worker.spans != nullptr && !stage.name.label.empty()) {
      worker.spans->lap();
    }
  }
}

void CpuPlan::execute(const Batch& batch, std::span<float> logits) {
  check_batch(batch, limits_, shape_, static_cast<int64_t>(logits.size()));
  reserve_room(batch);
  const RecordedStep recorded(timers_.recorder(), step_of(batch));
  timers_.start_host();
  begin(batch);
  timers_.lap_host(PlanTimers::kPrepare);
  take_inputs(batch);
  gather_embeddings(batch);
  timers_.lap_host(PlanTimers::kEntry);
  context_.pool->drive([this] { context_.pool->run(&CpuPlan::run_stages, this); });
  timers_.start_host();
  const FloatBuffer out = buffers_.floats(graph_.logits);
  for (int64_t r = 0; r < state_.rows(out.rows); ++r) {
    std::copy(out.row(r), out.row(r) + out.width, logits.data() + r * out.width);
  }
  advance(batch);
  timers_.lap_host(PlanTimers::kResult);
}

}  // namespace

std::unique_ptr<Plan> compile_plan(const CpuContext& context, const Graph& graph,
                                   std::shared_ptr<const CpuWeights> weights,
                                   const PlanLimits& limits) {
  return std::make_unique<CpuPlan>(context, graph, std::move(weights), limits);
}

}  // namespace qllm::cpu
