#include "cuda_plan.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/math.h"
#include "kernels/columns.h"
#include "kernels/rope_kv_write.h"
#include "team_kv_storage.h"

namespace qllm::cuda {

CudaPlan::CudaPlan(const DeviceInfo& device, const Graph& graph,
                   std::shared_ptr<const CudaWeights> weights, const PlanLimits& limits,
                   PlanRank team)
    : device_(device),
      team_(std::move(team)),
      graph_(graph),
      weights_(std::move(weights)),
      limits_(limits),
      shape_(step_shape(graph_)),
      forms_(graph_, *weights_),
      activations_(graph_, forms_, limits_),
      upload_(limits_),
      attention_(graph_, limits_, device_.multiprocessors, team_.n_kv_heads),
      labels_(op_labels(graph_)) {
  make_linear_context();
  for (op_ = 0; op_ < graph_.ops.size(); ++op_) std::visit(*this, graph_.ops[op_]);
  make_host_rows();
  make_slots();
}

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

void CudaPlan::make_slots() {
  int64_t values = 0;
  for (const Stage& stage : stages_) {
    if (!stage.gather) continue;
    const auto& [value, deal, in_rows] = *stage.gather;
    values = std::max(values, deal.ranks * activations_.max_rows(value) * deal.most());
  }
  if (values == 0) return;
  slots_ = DeviceBuffer(values * static_cast<int64_t>(sizeof(float)), "exchanges");
}

/// Columns of a value that this rank makes.
int64_t CudaPlan::own_width(ValueId id, const Deal& deal) const {
  return std::min(deal.end(team_.rank), graph_.value(id).width) - deal.begin(team_.rank);
}

float* CudaPlan::slot(const Deal& deal, int64_t rows) const {
  return slots_.as<float>() + team_.rank * rows * deal.most();
}

/// Where this rank's columns of `all` rows of a value go: where they are sent from.
FloatRows CudaPlan::own_rows(const FloatRows& all, ValueId id, const Deal& deal) const {
  if (deal.unit == 0) return all;
  const int64_t m = rows(id), width = own_width(id, deal);
  if (in_place(deal, m)) {
    return {all.data + deal.begin(team_.rank), round_up(width, kBlockN), width};
  }
  return {slot(deal, m), deal.most(), width};
}

void CudaPlan::gather(ValueId id, const Deal& deal, bool in_rows) {
  if (deal.unit == 0) return;
  add_stage({}, "exchange");
  stages_.back().gather = Gather{id, deal, in_rows};
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
  const Deal deal = this->deal();
  if (deal.unit != 0) {  // columns of all rows
    const int64_t begin = deal.begin(team_.rank);
    y.floats.data += begin;
    y.floats.width = own_width(op.out, deal);
    if (y.residual != nullptr) y.residual += begin;
  }
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
  gather(op.out, deal, true);
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
  const Deal deal = this->deal();
  add_stage([this, op, deal, q = activations_.floats(op.q), out = activations_.floats(op.out)] {
    attention_.run(op, q, own_rows(out, op.out, deal), upload_.tables(), stream_);
  });
  gather(op.out, deal, false);
  quantize_if_wanted(op.out);
}

void CudaPlan::operator()(const SwiGluOp& op) {
  const Deal deal = this->deal();
  const bool whole = deal.unit == 0;
  const int64_t d_ff = whole ? graph_.value(op.out).width : own_width(op.out, deal);
  const LinearOp* const linear = fused_linear(op_);
  const DeviceLinear* const w = linear != nullptr ? &weights_->linear(linear->weight) : nullptr;
  const float* const x_scale = w != nullptr ? activations_.quantized(linear->in).scale : nullptr;
  const RowOutputs all =
      whole ? outputs_of(op.out) : RowOutputs{activations_.floats(op.out), {}, nullptr, 0};
  add_stage([this, op, deal, d_ff, w, x_scale, all, in = activations_.floats(op.gate_up)] {
    const int64_t m = rows(op.out);
    RowOutputs out = all;
    if (deal.unit != 0) out.floats = own_rows(all.floats, op.out, deal);
    if (w != nullptr && leaves_sums(*w, m, linear_)) {
      const Int8Run& run = w->int8[0].first;
      swiglu_sums({linear_.sums, run.n, x_scale, run.scale}, d_ff, op.hadamard != 0, m, out,
                  stream_.get());
    } else {
      swiglu_rows(in, d_ff, op.hadamard != 0, m, out, stream_.get());
    }
  });
  if (whole) return;
  gather(op.out, deal, false);
  quantize_if_wanted(op.out);
}

void CudaPlan::operator()(const SelectRowsOp& op) {
  add_stage([this, op, in = activations_.floats(op.in), out = activations_.floats(op.out)] {
    select_rows(in, upload_.tables().output_rows, step_.n_outputs, out, stream_.get());
  });
  quantize_if_wanted(op.out);
}

const CudaKvStorage& CudaPlan::storage(const Batch& batch, const BatchSlice& slice) const {
  if (team_.ranks == 1) return storage_of<CudaKvStorage>(batch, *slice.kv, "cuda");
  const auto& team = storage_of<TeamKvStorage>(batch, *slice.kv, "cuda");
  require(team.ranks() == team_.ranks, ErrorCode::invalid_argument,
          "cuda: a KV cache on {} GPUs, weights on {}", team.ranks(), team_.ranks);
  return team.rank(team_.rank);
}

const CudaKvStorage& CudaPlan::storage(const Batch& batch) const {
  const CudaKvStorage& first = storage(batch, batch.slices[0]);
  for (const BatchSlice& slice : batch.slices) {
    require(storage(batch, slice).geometry() == first.geometry(), ErrorCode::invalid_argument,
            "cuda: KV caches of two formats in one step");
  }
  return first;
}

/// `made`: the rows, where another rank has them in page-locked memory.
void CudaPlan::send_entry(const Batch& batch, const float* made) {
  const FloatRows rows = activations_.floats(entry_);
  auto* const host = entry_rows_.as<float>();
  for (size_t t = 0; made == nullptr && t < batch.tokens.size(); ++t) {
    float* row = host + static_cast<int64_t>(t) * rows.ld;
    if (table_ != kNone) {
      read_weight_rows(weights_->source(), graph_.weight(table_), batch.tokens[t], 1, row);
    } else {
      const float* in = batch.inputs.data() + static_cast<int64_t>(t) * rows.width;
      std::copy(in, in + rows.width, row);
    }
  }
  const auto count = static_cast<int64_t>(batch.tokens.size());
  copy_to_device(rows.data, made != nullptr ? made : host,
                 count * rows.ld * static_cast<int64_t>(sizeof(float)), stream_);
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

std::vector<ProfileStage> CudaPlan::stage_names() const {
  std::vector<ProfileStage> names = {{"to the device", "copy"}};
  for (const Stage& stage : stages_) names.push_back(stage.name);
  names.push_back({"from the device", "copy"});
  return names;
}

void CudaPlan::set_track(StepRecorder* recorder, SpanTrack* track) {
  timers_.set(recorder, track, stages_.size() + 2);
}

void CudaPlan::set_recorder(StepRecorder* recorder) {
  timers_.clear();
  if (recorder == nullptr) return;
  check(cudaSetDevice(device_.index), "cudaSetDevice");
  std::vector<ProfileStage> names = stage_names();
  const std::string track = fmt::format("gpu {}", device_.index);
  const auto count = static_cast<int64_t>(names.size());
  ProfileTeam& team = recorder->add_team(TrackKind::gpu, {&track, 1}, std::move(names), count);
  set_track(recorder, &team.tracks.front());
}

/// The tables and rows of a step go to the device.
void CudaPlan::send(const Batch& batch, const float* entry_rows) {
  const KvGeometry& kv = storage(batch).geometry();
  const auto address = [&](const BatchSlice& slice, int32_t block) {
    return storage(batch, slice).address(block);
  };
  bool stale = upload_.send(batch, stream_, address);
  stale = attention_.prepare(batch, kv, stream_) || stale;
  if (stale || !(kv == kv_)) graphs_.clear();  // they hold addresses and the cache's shape
  kv_ = kv;
  step_ = {static_cast<int64_t>(batch.tokens.size()), static_cast<int64_t>(batch.outputs.size()),
           attention_.max_length()};
  send_entry(batch, entry_rows);
}

void CudaPlan::begin(const Batch& batch, const float* entry_rows) {
  timers_.begin(stream_);
  send(batch, entry_rows);
  timers_.lap(stream_);
}

void CudaPlan::end(const Batch& batch, std::span<float> out) {
  if (!out.empty()) fetch_result(batch, out);
  timers_.lap(stream_);
  stream_.synchronize();
  timers_.finish();
}

size_t CudaPlan::launch_from(size_t from) {
  for (; from < stages_.size() && !stages_[from].gather; ++from) {
    stages_[from].launch();
    timers_.lap(stream_);
  }
  return from;
}

int64_t CudaPlan::exchange_values(size_t i) const {
  const Gather& g = *stages_[i].gather;
  return rows(g.value) * g.deal.most();
}

Communicator::Exchange CudaPlan::begin_exchange(size_t i) {
  const auto& [value, deal, in_rows] = *stages_[i].gather;
  const int64_t m = rows(value);
  const FloatRows all = activations_.floats(value), own = own_rows(all, value, deal);
  if (in_place(deal, m)) return {own.data, all.data, stream_.get()};
  if (in_rows) {
    const FloatRows columns{all.data + deal.begin(team_.rank), all.ld, own.width};
    pack_columns(columns, m, own.data, own.ld, stream_.get());
  }
  return {own.data, slots_.as<float>(), stream_.get()};
}

void CudaPlan::end_exchange(size_t i) {
  const auto& [value, deal, in_rows] = *stages_[i].gather;
  const int64_t m = rows(value);
  if (!in_place(deal, m)) {
    unpack_columns(slots_.as<float>(), deal, m, activations_.floats(value), stream_.get());
  }
  timers_.lap(stream_);
}

void CudaPlan::execute(const Batch& batch, std::span<float> logits) {
  check_batch(batch, limits_, shape_, static_cast<int64_t>(logits.size()));
  check(cudaSetDevice(device_.index), "cudaSetDevice");
  reserve_room(batch);
  const RecordedStep recorded(timers_.recorder(), step_of(batch));
  begin(batch, nullptr);
  run(attention_.only_decode());
  end(batch, logits);
  advance(batch);
}

}  // namespace qllm::cuda
