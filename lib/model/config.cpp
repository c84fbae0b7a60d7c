#include "model/config.h"

#include <cmath>

#include "core/error.h"

namespace qllm {
namespace {

constexpr int64_t kMaxWidth = 65536;  // d_model
constexpr int64_t kMaxK = 65792;      // exact int32 sums (backends/cpu/kernels/dot.h)
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxVocab = int64_t{4} << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxContext = int64_t{1} << 30;

class Validator {
 public:
  explicit Validator(const std::string& origin) : origin_(origin) {}

  void range(const char* name, int64_t value, int64_t low, int64_t high) const {
    require(value >= low && value <= high, ErrorCode::bad_format,
            "{}: {}: expected {} to {}, found {}", origin_, name, low, high, value);
  }

  void positive(const char* name, float value) const {
    require(std::isfinite(value) && value > 0.0F, ErrorCode::bad_format,
            "{}: {}: expected a finite number above 0, found {}", origin_, name, value);
  }

 private:
  const std::string& origin_;
};

void validate_heads(const ModelConfig& c, const Validator& check, const std::string& origin) {
  check.range("attention heads", c.n_heads, 1, kMaxHeads);
  check.range("key/value heads", c.n_kv_heads, 1, c.n_heads);
  require(c.n_heads % c.n_kv_heads == 0, ErrorCode::bad_format,
          "{}: attention heads: expected a multiple of the {} key/value heads, found {}", origin,
          c.n_kv_heads, c.n_heads);
  check.range("head dimension", c.head_dim, 1, kMaxHeadDim);
  check.range("attention heads x head dimension", c.n_heads * c.head_dim, 1, kMaxK);
  check.range("rotary dimension", c.rotary_dim, 2, c.head_dim);
  require(c.rotary_dim % 2 == 0, ErrorCode::bad_format,
          "{}: rotary dimension: expected an even number, found {}", origin, c.rotary_dim);
}

void validate_rope(const ModelConfig& c, const Validator& check, const std::string& origin) {
  check.positive("rope base", c.rope_base);
  check.positive("rope scaling factor", c.rope_linear_scale);
  if (c.rope_freq_factors.empty()) return;
  require(static_cast<int64_t>(c.rope_freq_factors.size()) == c.rotary_dim / 2,
          ErrorCode::bad_format, "{}: rope frequency factors: expected {}, found {}", origin,
          c.rotary_dim / 2, c.rope_freq_factors.size());
  for (const float factor : c.rope_freq_factors) check.positive("rope frequency factor", factor);
}

}  // namespace

void validate(const ModelConfig& config, const std::string& origin) {
  const Validator check(origin);
  check.range("vocabulary size", config.vocab_size, 1, kMaxVocab);
  check.range("embedding length", config.d_model, 1, kMaxWidth);
  check.range("feed-forward length", config.d_ff, 1, kMaxK);
  check.range("layers", config.n_layers, 1, kMaxLayers);
  check.range("context length", config.context_length, 1, kMaxContext);
  validate_heads(config, check, origin);
  check.positive("RMS norm epsilon", config.rms_norm_eps);
  validate_rope(config, check, origin);
}

}  // namespace qllm
