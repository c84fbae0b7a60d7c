// A model of random weights: for benchmarks of shapes for which no file is at hand.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "graph/graph.h"

namespace qllm {

/// Uniform weights of standard deviation 1/sqrt(row length), gains of one; the same for the same
/// seed, tensor name and row whoever asks.
class SyntheticSource final : public TensorSource {
 public:
  SyntheticSource(const Graph& graph, uint64_t seed);
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override;

 private:
  struct Tensor {
    int64_t width = 0;
    bool is_vector = false;
  };
  std::map<std::string, Tensor> tensors_;
  uint64_t seed_;
};

}  // namespace qllm
