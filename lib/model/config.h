// Hyper-parameters of a LLaMA-like decoder, independent of the file they came from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace qllm {

struct ModelConfig {
  std::string architecture;  // "llama", …
  std::string name;          // general.name, may be empty
  int64_t vocab_size = 0;
  int64_t d_model = 0;
  int64_t d_ff = 0;
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;      // <= head_dim, even
  int64_t context_length = 0;  // the longest the model was trained for
  float rms_norm_eps = 1e-5F;
  float rope_base = 10000.0F;
  float rope_linear_scale = 1.0F;        // positions are divided by it
  std::vector<float> rope_freq_factors;  // [rotary_dim/2] or empty; angles are divided by them
  RopeStyle rope_style = RopeStyle::adjacent;
  bool tied_lm_head = false;    // no output.weight: the embedding table is the LM head
  bool attention_bias = false;  // blk.N.attn_{q,k,v}.bias are there
};

/// Throws bad_format where a number is absurd (zero or huge sizes, heads that do not divide, an odd
/// rotary_dim, …) naming it. `origin` begins each message (a path).
void validate(const ModelConfig& config, const std::string& origin);

}  // namespace qllm
