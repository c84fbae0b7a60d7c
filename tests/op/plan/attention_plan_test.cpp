// Attention in whole steps: batches that mix prefill and decode of several sequences, both cache
// formats, windows and soft caps, against the reference that stores the same values.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <variant>
#include <vector>

#include "backend/backend.h"
#include "kernels/dot.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "support/agreement.h"

using namespace qllm;  // NOLINT

namespace {

struct Shape {
  int64_t n_heads, n_kv_heads, head_dim;
  int64_t window = 0;
  float softcap = 0.0F;
};

constexpr int64_t kVocab = 200;
constexpr int64_t kMaxTokens = 160;

class Machine {
 public:
  Machine(const std::string& device, BackendOptions options, const Shape& s) {
    ModelConfig c;
    c.architecture = "llama";
    c.vocab_size = kVocab;
    c.d_model = 128;
    c.d_ff = 128;
    c.n_layers = 2;
    c.n_heads = s.n_heads;
    c.n_kv_heads = s.n_kv_heads;
    c.head_dim = s.head_dim;
    c.rotary_dim = s.head_dim / 2 * 2;
    c.context_length = 512;
    c.tied_lm_head = true;
    Graph graph = build_llama(c);
    for (Op& op : graph.ops) {
      if (auto* attention = std::get_if<AttentionOp>(&op)) {
        attention->window = s.window;
        attention->softcap = s.softcap;
        if (s.softcap > 0.0F) attention->scale *= 2.0F;  // so that the cap matters
      }
    }
    backend_ = make_backend(device, options);
    auto source = std::make_shared<SyntheticSource>(graph, 5);
    plan_ = backend_->compile(graph, backend_->load(graph, source, {}), {kMaxTokens, 8});
    pool_ = backend_->make_kv_pool({c.n_layers, c.n_kv_heads, c.head_dim}, {32, 0});
    for (int i = 0; i < 3; ++i) caches_.push_back(std::make_unique<KvCache>(pool_, 512));
  }

  /// `counts` tokens of each sequence in one step; logits of the last of each that has any.
  std::vector<float> step(const std::vector<int64_t>& counts) {
    std::vector<int32_t> ids, outputs;
    std::vector<BatchSlice> slices;
    for (size_t s = 0; s < counts.size(); ++s) {
      if (counts[s] == 0) continue;
      slices.push_back({caches_[s].get(), static_cast<int64_t>(ids.size()), counts[s]});
      for (int64_t i = 0; i < counts[s]; ++i)
        ids.push_back(static_cast<int32_t>(next_++ * 37 % kVocab));
      outputs.push_back(static_cast<int32_t>(ids.size() - 1));
    }
    std::vector<float> logits(outputs.size() * kVocab);
    plan_->execute({ids, slices, outputs}, logits);
    return logits;
  }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Plan> plan_;
  std::shared_ptr<KvPool> pool_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  int64_t next_ = 1;
};

}  // namespace

// support/agreement.h derives the bounds. Codes of int8 keys and values flip too, a row writes
// 1,000 of them, and they stay in the cache: there nearly all rows are rounded anew, and only that
// bound holds, with the keys and values of two layers, four roundings to 8 bits more than its nine.
// In bf16 the runs over all shapes together agree.
TEST_CASE("attention in steps: equals the reference that stores the same values") {
  test::Agreement bf16, int8;
  const std::vector<std::vector<int64_t>> steps = {
      {70, 5, 0}, {1, 90, 40}, {1, 1, 1}, {30, 1, 64}, {1, 1, 1}};
  for (const Shape& shape :
       {Shape{6, 3, 64}, Shape{4, 1, 32}, Shape{3, 3, 24}, Shape{4, 2, 80},
        Shape{4, 2, 64, 50, 0.0F}, Shape{4, 2, 32, 7, 1.0F}, Shape{4, 4, 64, 0, 0.5F}}) {
    for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
      BackendOptions options;
      options.kv_format = format;
      options.kv_as_bf16 = true;
      Machine oracle("reference", options, shape);
      std::vector<std::vector<float>> expected;
      for (const auto& counts : steps) expected.push_back(oracle.step(counts));
      for (const cpu::Isa isa : {cpu::Isa::scalar, cpu::best_isa()}) {
        for (const int threads : {1, 2, 3, 5}) {
          CAPTURE(shape.head_dim);
          CAPTURE(shape.window);
          CAPTURE(shape.softcap);
          CAPTURE(threads);
          options.isa = std::string(cpu::isa_name(isa));
          options.threads = threads;
          Machine machine("cpu", options, shape);
          test::Agreement& agreement = format == KvFormat::bf16 ? bf16 : int8;
          for (size_t i = 0; i < steps.size(); ++i) {
            agreement.compare(machine.step(steps[i]), expected[i], kVocab);
          }
          const double roundings = format == KvFormat::bf16 ? 9 : 13;
          CHECK(agreement.largest < test::Agreement::kRoundedAnew * std::sqrt(roundings / 9));
        }
      }
    }
  }
  INFO(bf16.close, " of ", bf16.rows, " rows close");
  CHECK(2 * bf16.close > bf16.rows);
}
