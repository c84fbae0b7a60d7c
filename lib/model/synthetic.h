// A model of random weights: for benchmarks of shapes for which no file is at hand.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "graph/graph.h"

namespace qllm {

/// Uniform weights of standard deviation 1/sqrt(row length), gains of one; the same for the same
/// seed, tensor name and row whoever asks. With a grid (4 bits, f16 or f16_min) the matrices lie on
/// it: then nothing has to be quantized, which for 33 G weights takes minutes.
class SyntheticSource final : public TensorSource {
 public:
  SyntheticSource(const Graph& graph, uint64_t seed, std::optional<GroupFormat> grid = {});
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override;
  std::optional<GroupFormat> grid(const std::string& tensor) const override;
  void read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const override;

 private:
  struct Tensor {
    int64_t width = 0;
    bool is_vector = false;
  };
  const Tensor& find(const std::string& tensor) const;
  uint64_t row_seed(const std::string& tensor, int64_t row) const;

  std::map<std::string, Tensor> tensors_;
  uint64_t seed_;
  std::optional<GroupFormat> grid_;
};

}  // namespace qllm
