#include "kernels/attend.h"
#include "ops/attention_run.h"
#include "ops/ops.h"

namespace qllm::cpu {
namespace {

/// Nothing to run: all layers' attention reads what is prepared here.
class AttentionScheduleStep final : public Step {
 public:
  AttentionScheduleStep(AttentionSchedule* schedule, int workers)
      : schedule_(schedule), workers_(workers) {}

  void prepare(const StepState& state) override {
    schedule_->build(state.slices, state.slices.front().storage->groups(), workers_);
  }
  void run(const StepState&, const Worker&) noexcept override {}
  bool meets(const StepState&) const override { return false; }

 private:
  AttentionSchedule* schedule_;
  int workers_;
};

class AttentionStep final : public Step {
 public:
  AttentionStep(const AttendTable& table, const AttentionOp& op, const AttentionSchedule* schedule,
                const FloatBuffer& q, const FloatBuffer& out, Scratch& scratch)
      : table_(table), layer_(op.layer) {
    call_.schedule = schedule;
    call_.scratch = &scratch;
    call_.q = q.data;
    call_.out = out.data;
    call_.ldq = q.ld;
    call_.ldout = out.ld;
    call_.shape = attention_shape(op);
    scratch.reserve(static_cast<size_t>(AttentionMemory::bytes(call_.shape)));
    call_.scale = op.scale;
    call_.softcap = op.softcap;
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    AttentionCall call = call_;
    call.slices = state.slices;
    const bool int8 = state.slices.front().storage->format() == KvFormat::int8;
    call.kernels = int8 ? &table_.int8 : &table_.bf16;
    attend_pieces(call, worker.index, [&](int64_t slice, int64_t kv_head, int64_t block) {
      const KvSlice& kv = state.slices[static_cast<size_t>(slice)];
      return kv.head(block * kKvBlockTokens, layer_, kv_head);
    });
    if (!call.schedule->has_cuts()) return;
    worker.meet();
    merge_pieces(call, worker.index);
  }

 private:
  const AttendTable& table_;
  int64_t layer_;
  AttentionCall call_;  // but for what the step brings
};

}  // namespace

AttentionShape attention_shape(const AttentionOp& op) {
  return {op.head_dim, op.n_heads / op.n_kv_heads, op.n_kv_heads};
}

std::unique_ptr<Step> make_attention_schedule(AttentionSchedule* schedule, int workers) {
  return std::make_unique<AttentionScheduleStep>(schedule, workers);
}

std::unique_ptr<Step> make_attention(const AttendTable& table, const AttentionOp& op,
                                     const AttentionSchedule* schedule, const FloatBuffer& q,
                                     const FloatBuffer& out, Scratch& scratch) {
  return std::make_unique<AttentionStep>(table, op, schedule, q, out, scratch);
}

}  // namespace qllm::cpu
