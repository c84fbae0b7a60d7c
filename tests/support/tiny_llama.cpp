#include "support/tiny_llama.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "support/tiny_vocab.h"

namespace qllm::test {
namespace {

class TinyLlama {
 public:
  explicit TinyLlama(const TinyLlamaOptions& options) : o_(options), random_(options.seed) {
    o_.vocab_size = std::max(o_.vocab_size, tiny_vocab_least(o_.tokenizer));
  }

  GgufBuilder build() {
    add_metadata();
    add_tiny_vocab(o_.tokenizer, o_.pre, o_.vocab_size, &b_);
    matrix("token_embd.weight", o_.vocab_size, o_.d_model);
    for (int64_t layer = 0; layer < o_.n_layers; ++layer) add_layer(layer);
    gain("output_norm.weight");
    if (!o_.tied_lm_head) matrix("output.weight", o_.vocab_size, o_.d_model);
    if (o_.rope_freqs) add_rope_freqs();
    return std::move(b_);
  }

 private:
  void add_metadata() {
    b_.add_string("general.architecture", "llama");
    b_.add_string("general.name", "tiny");
    b_.add_u32("llama.block_count", u32(o_.n_layers));
    b_.add_u32("llama.context_length", u32(o_.context_length));
    b_.add_u32("llama.embedding_length", u32(o_.d_model));
    b_.add_u32("llama.feed_forward_length", u32(o_.d_ff));
    b_.add_u32("llama.attention.head_count", u32(o_.n_heads));
    b_.add_u32("llama.attention.head_count_kv", u32(o_.n_kv_heads));
    b_.add_u32("llama.attention.key_length", u32(o_.head_dim));
    b_.add_u32("llama.attention.value_length", u32(o_.head_dim));
    b_.add_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
    b_.add_u32("llama.rope.dimension_count", u32(o_.head_dim));
    b_.add_f32("llama.rope.freq_base", 10000.0F);
    b_.add_u32("llama.vocab_size", u32(o_.vocab_size));
  }

  void add_layer(int64_t layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const int64_t q_width = o_.n_heads * o_.head_dim;
    const int64_t kv_width = o_.n_kv_heads * o_.head_dim;
    gain(prefix + "attn_norm.weight");
    matrix(prefix + "attn_q.weight", q_width, o_.d_model);
    matrix(prefix + "attn_k.weight", kv_width, o_.d_model);
    matrix(prefix + "attn_v.weight", kv_width, o_.d_model);
    matrix(prefix + "attn_output.weight", o_.d_model, q_width);
    if (o_.attention_bias) {
      vector(prefix + "attn_q.bias", q_width, 0.0F);
      vector(prefix + "attn_k.bias", kv_width, 0.0F);
      vector(prefix + "attn_v.bias", kv_width, 0.0F);
    }
    gain(prefix + "ffn_norm.weight");
    matrix(prefix + "ffn_gate.weight", o_.d_ff, o_.d_model);
    matrix(prefix + "ffn_up.weight", o_.d_ff, o_.d_model);
    matrix(prefix + "ffn_down.weight", o_.d_model, o_.d_ff);
  }

  void add_rope_freqs() {
    std::vector<float> factors(static_cast<size_t>(o_.head_dim / 2));
    for (size_t i = 0; i < factors.size(); ++i) factors[i] = 1.0F + 0.5F * static_cast<float>(i);
    b_.add_tensor("rope_freqs.weight", {o_.head_dim / 2}, GgmlType::f32, factors);
  }

  /// Uniform, of standard deviation 1/sqrt(columns): keeps activations near 1.
  void matrix(const std::string& name, int64_t rows, int64_t columns) {
    const float amplitude = std::sqrt(3.0F / static_cast<float>(columns));
    std::vector<float> values(static_cast<size_t>(rows * columns));
    for (float& v : values) v = amplitude * uniform();
    b_.add_tensor(name, {rows, columns}, o_.type, values);
  }

  void vector(const std::string& name, int64_t size, float mean) {
    std::vector<float> values(static_cast<size_t>(size));
    for (float& v : values) v = mean + 0.1F * uniform();
    b_.add_tensor(name, {size}, GgmlType::f32, values);
  }

  void gain(const std::string& name) { vector(name, o_.d_model, 1.0F); }

  /// In [-1, 1); from the engine's own bits, so that it is the same with every standard library.
  float uniform() { return static_cast<float>(random_() >> 40) * 0x1p-23F - 1.0F; }

  static uint32_t u32(int64_t v) { return static_cast<uint32_t>(v); }

  TinyLlamaOptions o_;
  std::mt19937_64 random_;
  GgufBuilder b_;
};

}  // namespace

GgufBuilder tiny_llama_builder(const TinyLlamaOptions& options) {
  return TinyLlama(options).build();
}

std::vector<std::byte> build_tiny_llama_gguf(const TinyLlamaOptions& options) {
  return tiny_llama_builder(options).finish();
}

void write_tiny_llama_gguf(const std::string& path, const TinyLlamaOptions& options) {
  write_file(path, build_tiny_llama_gguf(options));
}

}  // namespace qllm::test
