#include <algorithm>

#include "ops/ops.h"

namespace qllm::cpu {
namespace {

class SelectRowsStep final : public Step {
 public:
  SelectRowsStep(const FloatBuffer& in, const FloatBuffer& out) : in_(in), out_(out) {}

  void run(const StepState& state, const Worker& worker) noexcept override {
    const Share share = share_of(state.n_outputs, worker);
    for (int64_t r = share.begin; r < share.end; ++r) {
      const float* x = in_.row(state.outputs[static_cast<size_t>(r)]);
      std::copy(x, x + in_.width, out_.row(r));
    }
  }

 private:
  FloatBuffer in_;
  FloatBuffer out_;
};

}  // namespace

std::unique_ptr<Step> make_select_rows(const FloatBuffer& in, const FloatBuffer& out) {
  return std::make_unique<SelectRowsStep>(in, out);
}

}  // namespace qllm::cpu
