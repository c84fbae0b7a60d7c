// Picks the next token from logits.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "qllm/qllm.hpp"

namespace qllm {

/// Order: repetition penalty, then (temperature 0: argmax, the lowest id on a tie) top-k, top-p and
/// min-p on the untempered distribution, then temperature. The same seed gives the same tokens on
/// every platform. Allocates in the constructor only.
class Sampler {
 public:
  /// Throws invalid_argument for options out of range, naming the option.
  Sampler(const GenerateOptions& options, int64_t vocab);

  /// `recent`: the sequence so far, its last repeat_window tokens are penalised. Changes `logits`.
  /// NaN logits are never picked; all NaN throws internal.
  int32_t sample(std::span<float> logits, std::span<const int32_t> recent);

 private:
  struct Candidate {
    int32_t id;
    float logit;
    double p;
  };
  void penalise(std::span<float> logits, std::span<const int32_t> recent);
  void collect(std::span<const float> logits);
  void keep_top_k();
  void keep_top_p_and_min_p();
  int32_t draw();

  GenerateOptions options_;
  std::vector<Candidate> candidates_;
  std::vector<uint8_t> seen_;  // per token: already penalised in this step
  std::mt19937_64 rng_;
};

}  // namespace qllm
