// Whole steps of a small model on a device: batches that mix prefill and decode of several
// sequences.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "support/grid_source.h"

namespace qllm::test {

inline constexpr int64_t kVocab = 200;
inline constexpr int64_t kMaxTokens = 160;

struct StepsShape {
  int64_t d_model = 128, d_ff = 192, n_heads = 4, n_kv_heads = 2, head_dim = 32;
  bool on_grids = false;
};

inline Graph graph_of(const StepsShape& s) {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = kVocab;
  c.d_model = s.d_model;
  c.d_ff = s.d_ff;
  c.n_layers = 2;
  c.n_heads = s.n_heads;
  c.n_kv_heads = s.n_kv_heads;
  c.head_dim = s.head_dim;
  c.rotary_dim = s.head_dim;
  c.context_length = 512;
  c.tied_lm_head = true;
  return build_llama(c);
}

/// A backend with the model, a plan and three sequences.
class StepsMachine {
 public:
  StepsMachine(std::unique_ptr<Backend> backend, const StepsShape& s)
      : backend_(std::move(backend)) {
    const Graph graph = graph_of(s);
    std::shared_ptr<const TensorSource> source = std::make_shared<SyntheticSource>(graph, 5);
    if (s.on_grids) source = std::make_shared<GridSource>(graph, source);
    plan_ = backend_->compile(graph, backend_->load(graph, source, {}), {kMaxTokens, 8});
    pool_ = backend_->make_kv_pool({2, s.n_kv_heads, s.head_dim}, {32, 0});
    for (int i = 0; i < 3; ++i) caches_.push_back(std::make_unique<KvCache>(pool_, 512));
  }

  /// `counts` tokens of each sequence in one step; logits of the last of each that has any.
  std::vector<float> step(const std::vector<int64_t>& counts) {
    std::vector<int32_t> ids, outputs;
    std::vector<BatchSlice> slices;
    for (size_t s = 0; s < counts.size(); ++s) {
      if (counts[s] == 0) continue;
      slices.push_back({caches_[s].get(), static_cast<int64_t>(ids.size()), counts[s]});
      for (int64_t i = 0; i < counts[s]; ++i) {
        ids.push_back(static_cast<int32_t>(next_++ * 37 % kVocab));
      }
      outputs.push_back(static_cast<int32_t>(ids.size() - 1));
    }
    std::vector<float> logits(outputs.size() * kVocab);
    plan_->execute({ids, slices, outputs}, logits);
    return logits;
  }
  Plan& plan() { return *plan_; }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Plan> plan_;
  std::shared_ptr<KvPool> pool_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  int64_t next_ = 1;
};

inline const std::vector<std::vector<int64_t>> kSteps = {
    {70, 5, 0}, {1, 90, 40}, {1, 1, 1}, {1, 1, 1}, {30, 1, 64}, {1, 0, 1}, {1, 1, 1}};

inline BackendOptions options_of(const std::string& scheme, KvFormat format = KvFormat::bf16) {
  BackendOptions options;
  options.scheme = parse_scheme(scheme);
  options.kv_format = format;
  options.kv_as_bf16 = true;
  return options;
}

inline std::vector<std::vector<float>> run_all(StepsMachine& machine) {
  std::vector<std::vector<float>> out;
  for (const auto& counts : kSteps) out.push_back(machine.step(counts));
  return out;
}

}  // namespace qllm::test
