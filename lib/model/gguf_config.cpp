#include "model/gguf_config.h"

#include <limits>
#include <string>

#include "core/error.h"
#include "model/gguf_source.h"

namespace qllm {
namespace {

/// Reads "<architecture>.<name>" keys as the types of ModelConfig.
class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, std::string prefix)
      : file_(file), prefix_(std::move(prefix)) {}

  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  int64_t size(std::string_view name) const { return bounded(name, file_.get_u64(key(name))); }

  int64_t size_or(std::string_view name, int64_t otherwise) const {
    const auto value = file_.find_u64(key(name));
    return value ? bounded(name, *value) : otherwise;
  }

  float number(std::string_view name) const { return static_cast<float>(file_.get_f64(key(name))); }

  float number_or(std::string_view name, float otherwise) const {
    return static_cast<float>(file_.find_f64(key(name)).value_or(otherwise));
  }

 private:
  int64_t bounded(std::string_view name, uint64_t value) const {
    constexpr uint64_t kLimit = std::numeric_limits<int32_t>::max();
    require(value <= kLimit, ErrorCode::bad_format, "{}: key {}: expected at most {}, found {}",
            file_.origin(), key(name), kLimit, value);
    return static_cast<int64_t>(value);
  }

  const GgufFile& file_;
  std::string prefix_;
};

/// The tokens of the vocabulary are what the embedding table has rows for; the key is a fallback.
int64_t vocab_size(const GgufFile& file, const ConfigReader& reader) {
  const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
  if (tokens != nullptr && tokens->type == GgufValueType::array && tokens->count != 0) {
    return static_cast<int64_t>(tokens->count);
  }
  return reader.size("vocab_size");
}

float rope_scale(const GgufFile& file, const ConfigReader& reader) {
  const auto type = file.find_string(reader.key("rope.scaling.type")).value_or("linear");
  if (type == "none") return 1.0F;
  require(type == "linear", ErrorCode::unsupported,
          "{}: key {}: expected \"none\" or \"linear\", found \"{}\"", file.origin(),
          reader.key("rope.scaling.type"), printable(type));
  const float legacy = reader.number_or("rope.scale_linear", 0.0F);
  const float factor = reader.number_or("rope.scaling.factor", legacy);
  return factor == 0.0F ? 1.0F : factor;  // writers put 0 for "no scaling"
}

std::vector<float> rope_freq_factors(const GgufFile& file, int64_t rotary_dim) {
  const GgufTensor* tensor = file.find_tensor("rope_freqs.weight");
  if (tensor == nullptr) return {};
  require(tensor->shape.size() == 1 && tensor->row_length() == rotary_dim / 2,
          ErrorCode::bad_format, "{}: tensor rope_freqs.weight: expected [{}], found [{}]",
          file.origin(), rotary_dim / 2, fmt::join(tensor->shape, ", "));
  std::vector<float> factors(static_cast<size_t>(rotary_dim / 2));
  read_tensor_rows(*tensor, 0, 1, factors.data());
  return factors;
}

void refuse_what_is_not_built(const GgufFile& file, const ConfigReader& reader,
                              const ModelConfig& config) {
  const int64_t experts = reader.size_or("expert_count", 0);
  require(experts == 0, ErrorCode::unsupported,
          "{}: key {}: models with experts are not supported, found {}", file.origin(),
          reader.key("expert_count"), experts);
  const int64_t value_length = reader.size_or("attention.value_length", config.head_dim);
  require(value_length == config.head_dim, ErrorCode::unsupported,
          "{}: key {}: expected {} as the keys have, found {}", file.origin(),
          reader.key("attention.value_length"), config.head_dim, value_length);
}

}  // namespace

ModelConfig config_from_gguf(const GgufFile& file) {
  const std::string_view architecture = file.get_string("general.architecture");
  require(architecture == "llama", ErrorCode::unsupported,
          "{}: architecture: expected \"llama\", found \"{}\"", file.origin(),
          printable(architecture));
  const ConfigReader reader(file, "llama.");
  ModelConfig c;
  c.architecture = architecture;
  c.name = file.find_string("general.name").value_or("");
  c.vocab_size = vocab_size(file, reader);
  c.d_model = reader.size("embedding_length");
  c.d_ff = reader.size("feed_forward_length");
  c.n_layers = reader.size("block_count");
  c.n_heads = reader.size("attention.head_count");
  require(c.n_heads > 0, ErrorCode::bad_format, "{}: key {}: expected at least 1, found 0",
          file.origin(), reader.key("attention.head_count"));
  c.n_kv_heads = reader.size_or("attention.head_count_kv", c.n_heads);
  c.head_dim = reader.size_or("attention.key_length", c.d_model / c.n_heads);
  c.rotary_dim = reader.size_or("rope.dimension_count", c.head_dim);
  c.context_length = reader.size("context_length");
  c.rms_norm_eps = reader.number("attention.layer_norm_rms_epsilon");
  c.rope_base = reader.number_or("rope.freq_base", 10000.0F);
  c.rope_linear_scale = rope_scale(file, reader);
  c.rope_style = RopeStyle::adjacent;
  c.tied_lm_head = file.find_tensor("output.weight") == nullptr;
  c.attention_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
  validate(c, file.origin());  // before anything is sized by it
  refuse_what_is_not_built(file, reader, c);
  c.rope_freq_factors = rope_freq_factors(file, c.rotary_dim);
  validate(c, file.origin());
  return c;
}

}  // namespace qllm
