// One SwiGLU FFN as a graph, and its random weights.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "core/math.h"
#include "graph/builder.h"
#include "model/synthetic.h"
#include "quant/packing.h"

namespace qllm::bench {

struct FfnShape {
  int64_t d_model = 7168;
  int64_t d_ff = 28672;

  /// Of the three matrices.
  int64_t weights() const { return 3 * d_model * d_ff; }
};

inline constexpr int64_t kFfnTokens = 64;  // rows of the table that the tokens are taken from

/// embed -> x; x + down(swiglu(gate_up(rms_norm(x)))); the last row is the result. `hadamard`: size
/// of the blocks that turn the input of down (0: none), as in a rotated model.
inline Graph ffn_graph(const FfnShape& shape, int32_t hadamard) {
  GraphBuilder b;
  const ValueId x = b.embed(b.embedding_weight("tokens", kFfnTokens, shape.d_model));
  ValueId h = b.rms_norm(x, b.vector_weight("gain", shape.d_model), 1e-5F);  // [tokens, d_model]
  std::vector<RowSpan> rows;  // gate and up by turns (graph.h, SwiGluOp)
  for (int64_t r = 0; r < shape.d_ff; r += kBlockN) {
    const int64_t count = std::min(kBlockN, shape.d_ff - r);
    rows.push_back({"gate", r, 2 * r, count});
    rows.push_back({"up", r, 2 * r + kBlockN, count});
  }
  const WeightId gate_up =
      b.linear_weight("gate_up", 2 * round_up(shape.d_ff, kBlockN), shape.d_model, std::move(rows));
  h = b.linear(h, gate_up);               // [tokens, 2 d_ff]
  h = b.swiglu(h, shape.d_ff, hadamard);  // [tokens, d_ff]
  const WeightId down =
      b.linear_weight("down", shape.d_model, shape.d_ff, {{"down", 0, 0, shape.d_model}});
  h = b.linear(h, down, kNone, x);    // [tokens, d_model]
  return b.finish(b.select_rows(h));  // [outputs, d_model]
}

/// Random weights; rows of tokens in the shape of a bell, as a normed residual has (sums of twelve
/// uniform ones): how many activations are large decides how fast AVX2 multiplies
/// (docs/kernels.md). The table of tokens is kept ready: making its rows is not what is measured.
class FfnSource final : public TensorSource {
 public:
  FfnSource(const Graph& graph, const FfnShape& shape) : random_(graph, 1), width_(shape.d_model) {
    table_.resize(static_cast<size_t>(kFfnTokens * width_));
    std::vector<float> uniform(table_.size());
    for (int64_t i = 0; i < 12; ++i) {
      random_.read_rows("tokens", i * kFfnTokens, kFfnTokens, uniform.data());
      for (size_t j = 0; j < table_.size(); ++j) table_[j] += uniform[j];
    }
  }

  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override {
    if (tensor == "tokens") {
      std::copy_n(table_.data() + row * width_, count * width_, out);
    } else {
      random_.read_rows(tensor, row, count, out);
    }
  }

 private:
  SyntheticSource random_;
  int64_t width_;
  std::vector<float> table_;  // [kFfnTokens, d_model]
};

}  // namespace qllm::bench
