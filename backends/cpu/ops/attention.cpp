#include "core/math.h"
#include "kv_layout.h"
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
    scratch_.reserve(score_bytes(state) + 2 * block_count(state) * sizeof(void*));
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const int64_t items = state.n_tokens * op_.n_kv_heads;
    for (int64_t item = worker.index; item < items; item += worker.count) {
      attend(state, item / op_.n_kv_heads, item % op_.n_kv_heads, worker.index);
    }
  }

 private:
  size_t score_bytes(const StepState& state) const {
    return static_cast<size_t>(op_.n_heads / op_.n_kv_heads *
                               round_up(state.max_capacity, kScoreAlign)) *
           sizeof(float);
  }
  static size_t block_count(const StepState& state) {
    return static_cast<size_t>(ceil_div(state.max_capacity, kKvBlockTokens));
  }

  void attend(const StepState& state, int64_t t, int64_t kv_head, int worker) noexcept {
    const KvSlice& kv = state.slice(t);
    AttendArgs a;
    a.group = op_.n_heads / op_.n_kv_heads;
    a.head_dim = op_.head_dim;
    a.length = state.position[static_cast<size_t>(t)] + 1;
    a.q = q_.row(t) + kv_head * a.group * op_.head_dim;
    a.out = out_.row(t) + kv_head * a.group * op_.head_dim;
    a.scores = scratch_.of<float>(worker);
    auto** k =
        reinterpret_cast<const uint16_t**>(scratch_.of<std::byte>(worker) + score_bytes(state));
    auto** v = k + block_count(state);
    for (int64_t j = 0; j < a.length; j += kKvBlockTokens) {
      const std::byte* head = kv.head(j, op_.layer, kv_head);
      k[j / kKvBlockTokens] = reinterpret_cast<const uint16_t*>(head);
      v[j / kKvBlockTokens] =
          reinterpret_cast<const uint16_t*>(head + kv_part_bytes(KvFormat::bf16, op_.head_dim));
    }
    a.k = k;
    a.v = v;
    a.ldq = op_.head_dim;
    a.ldkv = kv_head_dim_padded(op_.head_dim);
    a.scale = op_.scale;
    vec_.attend(a);
  }

  const VecKernels& vec_;
  AttentionOp op_;
  FloatBuffer q_;
  FloatBuffer out_;
  Scratch& scratch_;  // scores of one group, then blocks of k and of v
};

}  // namespace

std::unique_ptr<Step> make_attention(const VecKernels& vec, const AttentionOp& op,
                                     const FloatBuffer& q, const FloatBuffer& out,
                                     Scratch& scratch) {
  return std::make_unique<AttentionStep>(vec, op, q, out, scratch);
}

}  // namespace qllm::cpu
