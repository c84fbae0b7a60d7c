// Whole tiny models on the reference backend under every scheme, against fp32.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/gguf_config.h"
#include "model/gguf_source.h"
#include "model/llama.h"
#include "support/tiny_llama.h"

namespace qllm {
namespace {

constexpr int32_t kTokens = 24;

/// Logits of all tokens of a short sequence.
std::vector<float> run(const std::shared_ptr<const GgufFile>& file, const Scheme& scheme) {
  const ModelConfig config = config_from_gguf(*file);
  const Graph graph = build_llama(config);
  BackendOptions options;
  options.scheme = scheme;
  const auto backend = make_backend("reference", options);
  const auto weights = backend->load(graph, std::make_shared<GgufTensorSource>(file), {});
  const auto plan = backend->compile(graph, weights, {kTokens, kTokens});
  const auto kv =
      backend->make_kv_cache({config.n_layers, config.n_kv_heads, config.head_dim}, kTokens);
  std::vector<int32_t> ids;
  std::vector<int32_t> outputs;
  for (int32_t i = 0; i < kTokens; ++i) {
    ids.push_back((i * 37 + 11) % 300);
    outputs.push_back(i);
  }
  std::vector<float> logits(static_cast<size_t>(kTokens * config.vocab_size));
  const BatchSlice slice{kv.get(), 0, kTokens};
  plan->execute({ids, {&slice, 1}, outputs}, logits);
  return logits;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double diff = 0;
  double norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    diff += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(diff / norm);
}

}  // namespace

TEST_CASE("reference: keep runs a file on its grid, only activations are rounded") {
  // A group of 32 normal deviates reaches about 2.1 sigma: a step is 2.1/127, its error 0.0048 of
  // the group. Nine linears one behind another: 0.015, were each to pass its error on whole.
  // Rounding the weights to 4 bits as well would cost 0.08 a linear.
  for (GgmlType type : {GgmlType::q4_0, GgmlType::q4_1, GgmlType::q8_0}) {
    test::TinyLlamaOptions options;
    options.type = type;
    const auto bytes = test::build_tiny_llama_gguf(options);
    const auto file = GgufFile::parse(bytes, "mem");
    const double d = distance(run(file, {SchemeKind::keep}), run(file, {SchemeKind::fp32}));
    INFO("type ", static_cast<uint32_t>(type), " distance ", d);
    CHECK(d < 0.03);
    CHECK(d > 0);
  }
}

TEST_CASE("reference: the finer the scheme, the nearer to fp32") {
  const auto bytes = test::build_tiny_llama_gguf({});
  const auto file = GgufFile::parse(bytes, "mem");
  const std::vector<float> fp32 = run(file, {SchemeKind::fp32});
  const double keep = distance(run(file, {SchemeKind::keep}), fp32);
  const double int8 = distance(run(file, {SchemeKind::int8}), fp32);
  const double int4_g32 = distance(run(file, {SchemeKind::int4, 32, true}), fp32);
  const double int4_g64 = distance(run(file, {SchemeKind::int4, 64, false}), fp32);
  INFO("keep ", keep, " int8 ", int8, " int4-g32 ", int4_g32, " int4-g64-sym ", int4_g64);
  // Without a grid keep is int8 in groups; at 64 inputs that is hardly nearer than whole rows.
  CHECK(keep < int4_g32 / 2);
  CHECK(int8 < int4_g32 / 2);
  CHECK(int4_g32 < int4_g64);
  CHECK(int4_g64 < 0.5);
}

}  // namespace qllm
