// Shapes: presets, what a model file says, and the check that every number is in range.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "qllm/roofline.hpp"

namespace qllm::roofline {
namespace {

constexpr int64_t kMaxWidth = 65536;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxVocab = int64_t{4} << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxExperts = 4096;

struct Preset {
  const char* name;
  const char* source;
  int64_t vocab, d_model, d_ff, n_layers, n_heads, n_kv_heads, head_dim;
  int64_t n_experts = 0, n_experts_used = 0;  // in every layer
};

constexpr const char* kLlama3 = "The Llama 3 Herd of Models, Meta 2024 (arXiv 2407.21783), table 3";
constexpr const char* kLlama32 = "Llama 3.2 1B model card and config.json, Meta 2024";
constexpr const char* kMixtral = "Mixtral of Experts, Mistral AI 2024 (arXiv 2401.04088), table 1";
constexpr const char* kOwn = "the shape of the project's own studies (docs/design.md)";
constexpr const char* kBench = "the default of `qllm bench --synthetic`";

constexpr std::array<Preset, 6> kPresets = {{
    {"bench-1b", kBench, 49152, 2048, 8192, 16, 32, 8, 64},
    {"llama-1b", kLlama32, 128256, 2048, 8192, 16, 32, 8, 64},
    {"llama-8b", kLlama3, 128256, 4096, 14336, 32, 32, 8, 128},
    {"llama-32b", kOwn, 32000, 7168, 28672, 42, 56, 8, 128},
    {"llama-70b", kLlama3, 128256, 8192, 28672, 80, 64, 8, 128},
    {"mixtral-8x7b", kMixtral, 32000, 4096, 14336, 32, 32, 8, 128, 8, 2},
}};

Shape to_shape(const Preset& p) {
  Shape s;
  s.name = p.name;
  s.source = p.source;
  s.vocab = p.vocab;
  s.d_model = p.d_model;
  s.n_layers = p.n_layers;
  s.n_heads = p.n_heads;
  s.n_kv_heads = p.n_kv_heads;
  s.head_dim = p.head_dim;
  s.n_experts = p.n_experts;
  s.n_experts_used = p.n_experts_used;
  s.n_moe_layers = p.n_experts > 0 ? p.n_layers : 0;
  (p.n_experts > 0 ? s.d_ff_expert : s.d_ff) = p.d_ff;
  return s;
}

class Validator {
 public:
  explicit Validator(const std::string& name) : name_(name) {}
  void range(const char* what, int64_t value, int64_t low, int64_t high) const {
    require(value >= low && value <= high, ErrorCode::bad_format,
            "{}: {}: expected {} to {}, found {}", name_, what, low, high, value);
  }

 private:
  const std::string& name_;
};

void validate_experts(const Shape& s, const Validator& check) {
  check.range("layers with experts", s.n_moe_layers, 0, s.n_layers);
  if (s.n_moe_layers < s.n_layers) check.range("feed-forward length", s.d_ff, 1, kMaxWidth);
  if (s.n_moe_layers == 0) return;
  check.range("experts", s.n_experts, 1, kMaxExperts);
  check.range("experts used", s.n_experts_used, 1, s.n_experts);
  check.range("an expert's feed-forward length", s.d_ff_expert, 1, kMaxWidth);
  check.range("the shared expert's feed-forward length", s.d_ff_shared, 0, kMaxWidth);
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& p : kPresets) names.emplace_back(p.name);
  return names;
}

Shape preset(std::string_view name) {
  const auto found = std::find_if(kPresets.begin(), kPresets.end(),
                                  [&](const Preset& p) { return name == p.name; });
  require(found != kPresets.end(), ErrorCode::invalid_argument, "preset {}: expected one of {}",
          name, fmt::join(preset_names(), ", "));
  return to_shape(*found);
}

void validate(const Shape& s) {
  const Validator check(s.name);
  check.range("vocabulary size", s.vocab, 1, kMaxVocab);
  check.range("width (d_model)", s.d_model, 1, kMaxWidth);
  check.range("layers", s.n_layers, 1, kMaxLayers);
  check.range("attention heads", s.n_heads, 1, kMaxHeads);
  check.range("key/value heads", s.n_kv_heads, 1, s.n_heads);
  require(s.n_heads % s.n_kv_heads == 0, ErrorCode::bad_format,
          "{}: attention heads: expected a multiple of the {} key/value heads, found {}", s.name,
          s.n_kv_heads, s.n_heads);
  check.range("head dimension", s.head_dim, 1, kMaxWidth);
  check.range("attention heads x head dimension", s.n_heads * s.head_dim, 1, 4 * kMaxWidth);
  check.range("sliding window", s.sliding_window, 0, int64_t{1} << 30);
  validate_experts(s, check);
}

Shape shape_from_model(const ModelInfo& info, const std::string& path) {
  Shape s;
  s.name = info.name.empty() ? path : info.name;
  s.source = path;
  s.vocab = info.vocab_size;
  s.d_model = info.d_model;
  s.d_ff = info.d_ff;
  s.n_layers = info.n_layers;
  s.n_heads = info.n_heads;
  s.n_kv_heads = info.n_kv_heads;
  s.head_dim = info.head_dim;
  s.tensors = info.tensors;
  s.qkv_bias = std::any_of(s.tensors.begin(), s.tensors.end(),
                           [](const TensorInfo& t) { return t.name == "blk.0.attn_q.bias"; });
  validate(s);
  return s;
}

}  // namespace qllm::roofline
