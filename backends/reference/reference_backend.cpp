#include "reference/reference_backend.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "backend/batch.h"
#include "backend/weight_block.h"
#include "core/error.h"
#include "graph/liveness.h"
#include "quant/group_quant.h"
#include "quant/int8.h"
#include "reference/ops.h"

namespace qllm::reference {
namespace {

/// Per graph weight: the form its role asks for.
struct ReferenceWeights final : Weights {
  std::shared_ptr<const TensorSource> source;
  std::vector<LinearWeights> linears;
  std::vector<std::vector<float>> vectors;
  int64_t total_bytes = 0;
  int64_t gathered_row_bytes = 0;

  int64_t bytes() const override { return total_bytes; }
  int64_t bytes_per_step() const override { return total_bytes + gathered_row_bytes; }
};

LinearWeights load_f32(const Weight& weight, const TensorSource& source) {
  LinearWeights out;
  out.f32.resize(static_cast<size_t>(weight.n * weight.k));
  read_weight_rows(source, weight, 0, weight.n, out.f32.data());
  return out;
}

/// The second term of row `i`; `row` holds its weights and is used up.
void load_second_term(const Weight& weight, int64_t i, float* row, LinearWeights* out) {
  out->second.resize(out->s8.size());
  out->second_scale.resize(out->scale.size());
  subtract_codes(out->s8.data() + i * weight.k, 0, out->scale[static_cast<size_t>(i)], weight.k,
                 row);
  out->second_scale[static_cast<size_t>(i)] =
      quantize_row_s8(row, weight.k, out->second.data() + i * weight.k);
}

LinearWeights load_s8(const Weight& weight, const TensorSource& source, const Scheme& scheme) {
  LinearWeights out;
  out.s8.resize(static_cast<size_t>(weight.n * weight.k));
  out.scale.resize(static_cast<size_t>(weight.n));
  std::vector<float> row(static_cast<size_t>(weight.k));
  for (int64_t i = 0; i < weight.n; ++i) {
    read_weight_rows(source, weight, i, 1, row.data());
    out.scale[static_cast<size_t>(i)] =
        quantize_row_s8(row.data(), weight.k, out.s8.data() + i * weight.k);
    const int64_t block = i / kBlockN * kBlockN;
    if (block_format(scheme, weight, source, block).terms == 2) {
      load_second_term(weight, i, row.data(), &out);
    }
  }
  return out;
}

void append_group_row(const GroupFormat& format, const GroupRow& row, LinearWeights* out) {
  for (uint8_t q : row.q) out->codes.push_back(static_cast<int16_t>(q - format.zero()));
  for (int64_t g = 0; g < out->k_padded / format.group; ++g) {
    const GroupScale s = group_scale(format, row, g);
    out->scale.push_back(s.scale);
    out->minimum.push_back(s.min);
  }
}

// Blocks of a weight may lie on several grids; their groups have one size.
LinearWeights load_groups(const Scheme& scheme, const Weight& weight, const TensorSource& source) {
  LinearWeights out;
  WeightBlock block;
  for (int64_t row = 0; row < weight.n; row += kBlockN) {
    const GroupFormat format = block_format(scheme, weight, source, row).groups;
    out.group = format.group;
    out.k_padded = format.padded_k(weight.k);
    read_weight_block(source, weight, format, row, &block);
    for (int64_t r = 0; r < std::min(kBlockN, weight.n - row); ++r) {
      append_group_row(format, block[static_cast<size_t>(r)], &out);
    }
  }
  return out;
}

LinearWeights load_linear(const Weight& weight, const TensorSource& source, const Scheme& scheme) {
  const auto load = [&]() -> LinearWeights {
    switch (block_format(scheme, weight, source, 0).kind) {
      case WeightFormat::Kind::f32:
        return load_f32(weight, source);
      case WeightFormat::Kind::row_int8:
        return load_s8(weight, source, scheme);
      case WeightFormat::Kind::groups:
        return load_groups(scheme, weight, source);
    }
    fail(ErrorCode::internal, "weight {}: unknown format", weight.name);
  };
  LinearWeights out = load();
  out.n = weight.n;
  out.k = weight.k;
  return out;
}

int64_t linear_bytes(const LinearWeights& w) {
  return static_cast<int64_t>(w.f32.size() * 4 + w.s8.size() + w.second.size() +
                              w.codes.size() * 2 +
                              (w.scale.size() + w.second_scale.size() + w.minimum.size()) * 4);
}

class ReferencePlan final : public Plan {
 public:
  ReferencePlan(const Graph& graph, std::shared_ptr<const ReferenceWeights> weights,
                const PlanLimits& limits)
      : graph_(graph),
        weights_(std::move(weights)),
        limits_(limits),
        shape_(step_shape(graph)),
        plan_(plan_buffers(graph)) {
    for (const BufferPlan::Buffer& b : plan_.buffers) {
      const int64_t rows = b.rows == Rows::tokens ? limits.max_tokens : limits.max_outputs;
      buffers_.emplace_back(static_cast<size_t>(rows * b.width));
    }
  }

  const PlanLimits& limits() const override { return limits_; }

  void execute(const Batch& batch, std::span<float> logits) override {
    check_batch(batch, limits_, shape_, static_cast<int64_t>(logits.size()));
    reserve_room(batch);
    batch_ = &batch;
    const RecordedStep recorded(recorder_, step_of(batch));
    if (track_ != nullptr) track_->start(recorder_->step());
    for (size_t i = 0; i < graph_.ops.size(); ++i) {
      std::visit(*this, graph_.ops[i]);
      if (track_ == nullptr) continue;
      track_->set_stage(static_cast<int32_t>(i));
      track_->lap();
    }
    const float* out = at(graph_.logits);
    std::copy(out, out + result_size(batch, shape_), logits.begin());
    advance(batch);
  }

  void set_recorder(StepRecorder* recorder) override {
    recorder_ = recorder;
    track_ = nullptr;
    if (recorder == nullptr) return;
    const std::vector<std::string> labels = op_labels(graph_);
    std::vector<ProfileStage> stages;
    const auto count = static_cast<int32_t>(labels.size());
    for (int32_t i = 0; i < count; ++i) {
      stages.push_back(stage_of_ops(graph_, labels, i, i + 1));
    }
    const std::string name = "reference";
    track_ =
        &recorder->add_team(TrackKind::cpu, {&name, 1}, std::move(stages), count).tracks.front();
  }

  void operator()(const InputOp& op) {
    std::copy(batch_->inputs.begin(), batch_->inputs.end(), at(op.out));
  }
  void operator()(const EmbedOp& op) {
    const Weight& table = graph_.weight(op.table);
    float* out = at(op.out);
    for (size_t t = 0; t < batch_->tokens.size(); ++t) {
      read_weight_rows(*weights_->source, table, batch_->tokens[t], 1,
                       out + static_cast<int64_t>(t) * table.k);
    }
  }
  void operator()(const RmsNormOp& op) {
    const int64_t n = graph_.value(op.in).width;
    for (int64_t r = 0; r < rows(op.in); ++r) {
      rms_norm(at(op.in) + r * n, op.gain == kNone ? nullptr : vector(op.gain), op.eps, n,
               at(op.out) + r * n);
    }
  }
  void operator()(const LinearOp& op) {
    linear(weights_->linears[static_cast<size_t>(op.weight)], at(op.in), rows(op.in),
           op.bias == kNone ? nullptr : vector(op.bias),
           op.residual == kNone ? nullptr : at(op.residual), at(op.out));
  }
  void operator()(const RopeKvWriteOp& op) {
    for_each_token([&](int64_t t, const FloatKv& kv, int64_t position) {
      rope_kv_write(op, row(op.qkv, t), position, row(op.q, t), kv);
    });
  }
  void operator()(const AttentionOp& op) {
    for_each_token([&](int64_t t, const FloatKv& kv, int64_t position) {
#pragma omp parallel for schedule(static)
      for (int64_t h = 0; h < op.n_heads; ++h) {
        attend(op, row(op.q, t) + h * op.head_dim, h, position + 1, kv,
               row(op.out, t) + h * op.head_dim);
      }
    });
  }
  void operator()(const SwiGluOp& op) {
    for (int64_t r = 0; r < rows(op.out); ++r) {
      swiglu(row(op.gate_up, r), graph_.value(op.out).width, op.hadamard, row(op.out, r));
    }
  }
  void operator()(const SelectRowsOp& op) {
    const int64_t n = graph_.value(op.in).width;
    for (size_t r = 0; r < batch_->outputs.size(); ++r) {
      const float* in = row(op.in, batch_->outputs[r]);
      std::copy(in, in + n, row(op.out, static_cast<int64_t>(r)));
    }
  }

 private:
  float* at(ValueId id) {
    return buffers_[static_cast<size_t>(plan_.buffer_of[static_cast<size_t>(id)])].data();
  }
  float* row(ValueId id, int64_t r) { return at(id) + r * graph_.value(id).width; }
  const float* vector(WeightId id) const {
    return weights_->vectors[static_cast<size_t>(id)].data();
  }
  int64_t rows(ValueId id) const {
    return static_cast<int64_t>(graph_.value(id).rows == Rows::tokens ? batch_->tokens.size()
                                                                      : batch_->outputs.size());
  }
  template <typename F>
  void for_each_token(F f) {
    for (const BatchSlice& slice : batch_->slices) {
      const FloatKv kv(storage_of<FloatKvStorage>(*batch_, *slice.kv, "reference"),
                       slice.kv->blocks());
      for (int64_t i = 0; i < slice.count; ++i) f(slice.first + i, kv, slice.kv->length() + i);
    }
  }

  Graph graph_;
  std::shared_ptr<const ReferenceWeights> weights_;
  PlanLimits limits_;
  StepShape shape_;
  BufferPlan plan_;
  std::vector<std::vector<float>> buffers_;
  const Batch* batch_ = nullptr;
  StepRecorder* recorder_ = nullptr;
  SpanTrack* track_ = nullptr;
};

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(const BackendOptions& options) : scheme_(options.scheme) {
    if (options.kv_as_bf16) kv_rounding_ = KvRounding::bf16;
    if (options.kv_format == KvFormat::int8) kv_rounding_ = KvRounding::int8;
    if (options.kv_format == KvFormat::f16) kv_rounding_ = KvRounding::f16;
  }

  BackendInfo info() const override {
    BackendInfo info;
    info.name = "reference";
    info.isa = {"reference"};
    info.isa_used = "reference";
    info.notes = {fmt::format("plain loops, scheme {}", to_string(scheme_))};
    return info;
  }

  std::shared_ptr<const Weights> load(const Graph& graph,
                                      std::shared_ptr<const TensorSource> source,
                                      const ProgressFn& progress) override {
    auto out = std::make_shared<ReferenceWeights>();
    out->linears.resize(graph.weights.size());
    out->vectors.resize(graph.weights.size());
    for (size_t i = 0; i < graph.weights.size(); ++i) {
      const Weight& weight = graph.weights[i];
      if (weight.role == WeightRole::linear) {
        out->linears[i] = load_linear(weight, *source, scheme_);
        out->total_bytes += linear_bytes(out->linears[i]);
      } else if (weight.role == WeightRole::vector) {
        out->vectors[i].resize(static_cast<size_t>(weight.k));
        read_weight_vector(*source, weight, out->vectors[i].data());
        out->total_bytes += weight.k * 4;
      } else {
        out->gathered_row_bytes += weight.k * 4;
      }
      const double done = static_cast<double>(i + 1) / static_cast<double>(graph.weights.size());
      require(!progress || progress("loading", done), ErrorCode::cancelled, "loading: cancelled");
    }
    out->source = std::move(source);
    return out;
  }

  int64_t kv_block_bytes(const KvShape& shape) const override {
    return FloatKvStorage(shape, kv_rounding_, 0).block_bytes();
  }

  std::unique_ptr<KvStorage> make_kv_storage(const KvShape& shape, int64_t blocks) override {
    return std::make_unique<FloatKvStorage>(shape, kv_rounding_, blocks);
  }

  std::unique_ptr<Plan> compile(const Graph& graph, std::shared_ptr<const Weights> weights,
                                const PlanLimits& limits) override {
    auto own = std::dynamic_pointer_cast<const ReferenceWeights>(std::move(weights));
    require(own != nullptr, ErrorCode::invalid_argument, "reference: weights of another backend");
    return std::make_unique<ReferencePlan>(graph, std::move(own), limits);
  }

 private:
  Scheme scheme_;
  KvRounding kv_rounding_ = KvRounding::none;
};

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  return std::make_unique<ReferenceBackend>(options);
}

}  // namespace qllm::reference
