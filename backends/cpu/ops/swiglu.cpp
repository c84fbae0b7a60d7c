#include "ops/ops.h"

namespace qllm::cpu {
namespace {

class SwiGluStep final : public Step {
 public:
  SwiGluStep(const VecKernels& vec, const FloatBuffer& gate_up, const FloatBuffer& out,
             const QuantBuffer& quantized, Scratch& scratch)
      : vec_(vec), gate_up_(gate_up), out_(out), quantized_(quantized), scratch_(scratch) {
    scratch.reserve(static_cast<size_t>(out.ld) * sizeof(float));
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const Share share = share_of(state.rows(gate_up_.rows), worker);
    for (int64_t r = share.begin; r < share.end; ++r) {
      float* y = out_.data != nullptr ? out_.row(r) : scratch_.of<float>(worker.index);
      vec_.swiglu(gate_up_.row(r), out_.width, y);
      if (quantized_.data != nullptr) {
        quantized_.scale[r] = vec_.quantize_u8(y, out_.width, quantized_.ld, quantized_.row(r));
      }
    }
  }

 private:
  const VecKernels& vec_;
  FloatBuffer gate_up_;
  FloatBuffer out_;  // data may be null; width and ld hold
  QuantBuffer quantized_;
  Scratch& scratch_;  // one row
};

}  // namespace

std::unique_ptr<Step> make_swiglu(const VecKernels& vec, const FloatBuffer& gate_up,
                                  const FloatBuffer& out, const QuantBuffer& quantized,
                                  Scratch& scratch) {
  return std::make_unique<SwiGluStep>(vec, gate_up, out, quantized, scratch);
}

}  // namespace qllm::cpu
