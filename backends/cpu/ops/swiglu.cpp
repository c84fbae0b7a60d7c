#include "ops/ops.h"

namespace qllm::cpu {
namespace {

class SwiGluStep final : public Step {
 public:
  SwiGluStep(const VecKernels& vec, const FloatBuffer& gate_up, const FloatBuffer& out)
      : vec_(vec), gate_up_(gate_up), out_(out) {}

  void run(const StepState& state, const Worker& worker) noexcept override {
    const Share share = share_of(state.rows(gate_up_.rows), worker);
    for (int64_t r = share.begin; r < share.end; ++r) {
      vec_.swiglu(gate_up_.row(r), out_.width, out_.row(r));
    }
  }

 private:
  const VecKernels& vec_;
  FloatBuffer gate_up_;
  FloatBuffer out_;
};

}  // namespace

std::unique_ptr<Step> make_swiglu(const VecKernels& vec, const FloatBuffer& gate_up,
                                  const FloatBuffer& out) {
  return std::make_unique<SwiGluStep>(vec, gate_up, out);
}

}  // namespace qllm::cpu
