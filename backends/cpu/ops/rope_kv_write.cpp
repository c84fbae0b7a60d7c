#include <algorithm>
#include <cmath>

#include "kv_layout.h"
#include "ops/ops.h"

namespace qllm::cpu {
namespace {

class RopeTableStep final : public Step {
 public:
  explicit RopeTableStep(RopeTable* table) : table_(table) {}

  void run(const StepState& state, const Worker& worker) noexcept override {
    const size_t half = table_->inv_freq.size();
    const Share share = share_of(state.n_tokens, worker);
    for (int64_t t = share.begin; t < share.end; ++t) {
      const auto position = static_cast<float>(state.position[static_cast<size_t>(t)]);
      for (size_t i = 0; i < half; ++i) {
        const float angle = position * table_->inv_freq[i];
        table_->cos[static_cast<size_t>(t) * half + i] = std::cos(angle);
        table_->sin[static_cast<size_t>(t) * half + i] = std::sin(angle);
      }
    }
  }

 private:
  RopeTable* table_;
};

/// Heads of q, k and v in the order in which they lie in qkv. Either each worker takes the heads of
/// its own columns, or items (token, head) are shared out.
class RopeKvWriteStep final : public Step {
 public:
  RopeKvWriteStep(const VecKernels& vec, const RopeKvWriteOp& op, const RopeTable* table,
                  const FloatBuffer& qkv, const FloatBuffer& q, const ShardedLinear* shards,
                  Scratch& scratch)
      : vec_(vec), op_(op), table_(table), qkv_(qkv), q_(q), shards_(shards), scratch_(scratch) {
    scratch.reserve(static_cast<size_t>(op.head_dim) * sizeof(float));
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const int64_t heads = op_.n_heads + int64_t{2} * op_.n_kv_heads;
    float* scratch = scratch_.of<float>(worker.index);
    if (shards_ != nullptr) {
      const Shard& shard = shards_->shards[static_cast<size_t>(worker.index)];
      const int64_t end = std::min(heads, (shard.n0 + shard.n) / op_.head_dim);
      for (int64_t t = 0; t < state.n_tokens; ++t) {
        for (int64_t h = shard.n0 / op_.head_dim; h < end; ++h) write_head(state, t, h, scratch);
      }
      return;
    }
    const Share share = share_of(state.n_tokens * heads, worker);
    for (int64_t item = share.begin; item < share.end; ++item) {
      write_head(state, item / heads, item % heads, scratch);
    }
  }

 private:
  void write_head(const StepState& state, int64_t t, int64_t head, float* scratch) const noexcept {
    const float* x = qkv_.row(t) + head * op_.head_dim;
    const KvSlice& kv = state.slice(t);
    const KvFormat format = kv.storage->format();
    if (head < op_.n_heads) {
      float* q = q_.row(t) + head * op_.head_dim;
      rotate(t, x, q);
      if (kv_turns_keys(format, op_.head_dim)) vec_.hadamard64(q, op_.head_dim);
      return;
    }
    const int64_t position = state.position[static_cast<size_t>(t)];
    const int64_t token = position % kKvBlockTokens;
    std::byte* at = kv.head(position, op_.layer, (head - op_.n_heads) % op_.n_kv_heads);
    if (head >= op_.n_heads + op_.n_kv_heads) {
      write_kv_value(vec_, format, op_.head_dim, x, token, at);
      return;
    }
    rotate(t, x, scratch);
    if (kv_turns_keys(format, op_.head_dim)) vec_.hadamard64(scratch, op_.head_dim);
    write_kv_key(vec_, format, op_.head_dim, scratch, token, at);
  }

  void rotate(int64_t t, const float* x, float* y) const noexcept {
    const auto half = static_cast<int64_t>(table_->inv_freq.size());
    const float* c = table_->cos.data() + t * half;
    const float* s = table_->sin.data() + t * half;
    if (op_.style == RopeStyle::adjacent) {
      for (int64_t i = 0; i < half; ++i) {
        y[2 * i] = x[2 * i] * c[i] - x[2 * i + 1] * s[i];
        y[2 * i + 1] = x[2 * i] * s[i] + x[2 * i + 1] * c[i];
      }
    } else {
      for (int64_t i = 0; i < half; ++i) {
        y[i] = x[i] * c[i] - x[i + half] * s[i];
        y[i + half] = x[i] * s[i] + x[i + half] * c[i];
      }
    }
    for (int64_t i = 2 * half; i < op_.head_dim; ++i) y[i] = x[i];
  }

  const VecKernels& vec_;
  RopeKvWriteOp op_;
  const RopeTable* table_;
  FloatBuffer qkv_;
  FloatBuffer q_;
  const ShardedLinear* shards_;  // null: by items
  Scratch& scratch_;             // one head
};

}  // namespace

std::unique_ptr<Step> make_rope_table(RopeTable* table) {
  return std::make_unique<RopeTableStep>(table);
}

std::unique_ptr<Step> make_rope_kv_write(const VecKernels& vec, const RopeKvWriteOp& op,
                                         const RopeTable* table, const FloatBuffer& qkv,
                                         const FloatBuffer& q, const ShardedLinear* shards,
                                         Scratch& scratch) {
  return std::make_unique<RopeKvWriteStep>(vec, op, table, qkv, q, shards, scratch);
}

}  // namespace qllm::cpu
