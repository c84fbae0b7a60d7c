#include "core/math.h"
#include "ops/ops.h"

namespace qllm::cpu {
namespace {

constexpr int64_t kScoreAlign = 16;  // AttendArgs::scores

/// Items (token, KV head) go to workers by turns: neighbours cost alike, so the shares are even.
class AttentionStep final : public Step {
 public:
  AttentionStep(const VecKernels& vec, const AttentionOp& op, const FloatBuffer& q,
                const FloatBuffer& out, Scratch& scratch)
      : vec_(vec), op_(op), q_(q), out_(out), scratch_(scratch) {}

  void prepare(const StepState& state) override {
    const auto need = static_cast<size_t>(op_.n_heads / op_.n_kv_heads *
                                          round_up(state.max_capacity, kScoreAlign));
    scratch_.reserve(need * sizeof(float));
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const int64_t items = state.n_tokens * op_.n_kv_heads;
    for (int64_t item = worker.index; item < items; item += worker.count) {
      attend(state, item / op_.n_kv_heads, item % op_.n_kv_heads, worker.index);
    }
  }

 private:
  void attend(const StepState& state, int64_t t, int64_t kv_head, int worker) noexcept {
    const CpuKvCache& kv = *state.cache[static_cast<size_t>(t)];
    AttendArgs a;
    a.group = op_.n_heads / op_.n_kv_heads;
    a.head_dim = op_.head_dim;
    a.length = state.position[static_cast<size_t>(t)] + 1;
    a.q = q_.row(t) + kv_head * a.group * op_.head_dim;
    a.out = out_.row(t) + kv_head * a.group * op_.head_dim;
    a.k = kv.k(op_.layer, kv_head, 0);
    a.v = kv.v(op_.layer, kv_head, 0);
    a.scores = scratch_.of<float>(worker);
    a.ldq = op_.head_dim;
    a.ldkv = op_.head_dim;
    a.scale = op_.scale;
    vec_.attend(a);
  }

  const VecKernels& vec_;
  AttentionOp op_;
  FloatBuffer q_;
  FloatBuffer out_;
  Scratch& scratch_;  // scores of one group
};

}  // namespace

std::unique_ptr<Step> make_attention(const VecKernels& vec, const AttentionOp& op,
                                     const FloatBuffer& q, const FloatBuffer& out,
                                     Scratch& scratch) {
  return std::make_unique<AttentionStep>(vec, op, q, out, scratch);
}

}  // namespace qllm::cpu
