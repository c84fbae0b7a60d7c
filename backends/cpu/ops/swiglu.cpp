#include "ops/ops.h"

namespace qllm::cpu {
namespace {

class SwiGluStep final : public Step {
 public:
  SwiGluStep(const VecKernels& vec, const SwiGluOp& op, const FloatBuffer& gate_up,
             const FloatBuffer& out)
      : vec_(vec), op_(op), gate_up_(gate_up), out_(out) {}

  void run(const StepState& state, const Worker& worker) noexcept override {
    const Share share = share_of(state.rows(gate_up_.rows), worker);
    for (int64_t r = share.begin; r < share.end; ++r) {
      vec_.swiglu(gate_up_.row(r), out_.width, out_.row(r));
      if (op_.hadamard != 0) vec_.hadamard64(out_.row(r), out_.width);
    }
  }

 private:
  const VecKernels& vec_;
  SwiGluOp op_;
  FloatBuffer gate_up_;
  FloatBuffer out_;
};

}  // namespace

std::unique_ptr<Step> make_swiglu(const VecKernels& vec, const SwiGluOp& op,
                                  const FloatBuffer& gate_up, const FloatBuffer& out) {
  return std::make_unique<SwiGluStep>(vec, op, gate_up, out);
}

}  // namespace qllm::cpu
