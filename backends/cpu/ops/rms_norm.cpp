#include "ops/ops.h"

namespace qllm::cpu {
namespace {

/// Row r of `out` from `width` floats.
void quantize_row(const VecKernels& vec, const float* x, int64_t width, const QuantRows& out,
                  int64_t r) {
  if (out.group == 0) {
    out.scale[r] = vec.quantize_u8(x, width, out.ld, out.row(r));
    return;
  }
  vec.quantize_s8_groups(x, width, out.ld, out.group, reinterpret_cast<int8_t*>(out.row(r)),
                         out.scale + r * out.ldg(), out.sum + r * out.ldg());
}

class RmsNormStep final : public Step {
 public:
  RmsNormStep(const VecKernels& vec, const FloatBuffer& in, const float* gain, float eps,
              const FloatBuffer& out, const QuantBuffer& quantized, Scratch& scratch)
      : vec_(vec),
        in_(in),
        gain_(gain),
        eps_(eps),
        out_(out),
        quantized_(quantized),
        scratch_(scratch) {
    scratch.reserve(static_cast<size_t>(in.ld) * sizeof(float));
  }

  void run(const StepState& state, const Worker& worker) noexcept override {
    const int64_t rows = state.rows(in_.rows);
    const QuantRows q = quantized_.view(rows, worker);
    const Share share = quantized_.is_own(rows) ? Share{0, rows} : share_of(rows, worker);
    for (int64_t r = share.begin; r < share.end; ++r) {
      float* y = out_.data != nullptr ? out_.row(r) : scratch_.of<float>(worker.index);
      vec_.rms_norm(in_.row(r), gain_, eps_, in_.width, y);
      if (q.data != nullptr) quantize_row(vec_, y, in_.width, q, r);
    }
  }
  bool meets(const StepState& state) const override {
    return !quantized_.is_own(state.rows(in_.rows));
  }

 private:
  const VecKernels& vec_;
  FloatBuffer in_;
  const float* gain_;
  float eps_;
  FloatBuffer out_;
  QuantBuffer quantized_;
  Scratch& scratch_;  // one row
};

class QuantizeStep final : public Step {
 public:
  QuantizeStep(const VecKernels& vec, const FloatBuffer& in, const QuantBuffer& out)
      : vec_(vec), in_(in), out_(out) {}

  void run(const StepState& state, const Worker& worker) noexcept override {
    const int64_t rows = state.rows(in_.rows);
    const QuantRows q = out_.view(rows, worker);
    const Share share = out_.is_own(rows) ? Share{0, rows} : share_of(rows, worker);
    for (int64_t r = share.begin; r < share.end; ++r) {
      quantize_row(vec_, in_.row(r), in_.width, q, r);
    }
  }
  bool meets(const StepState& state) const override { return !out_.is_own(state.rows(in_.rows)); }

 private:
  const VecKernels& vec_;
  FloatBuffer in_;
  QuantBuffer out_;
};

}  // namespace

std::unique_ptr<Step> make_rms_norm(const VecKernels& vec, const FloatBuffer& in, const float* gain,
                                    float eps, const FloatBuffer& out, const QuantBuffer& quantized,
                                    Scratch& scratch) {
  return std::make_unique<RmsNormStep>(vec, in, gain, eps, out, quantized, scratch);
}

std::unique_ptr<Step> make_quantize(const VecKernels& vec, const FloatBuffer& in,
                                    const QuantBuffer& out) {
  return std::make_unique<QuantizeStep>(vec, in, out);
}

}  // namespace qllm::cpu
