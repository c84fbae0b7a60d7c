#include "model/gguf_config.h"

#include <doctest/doctest.h>

#include <limits>

#include "support/errors.h"
#include "support/tiny_llama.h"

namespace qllm {
namespace {

using test::check_error;
using test::GgufBuilder;
using test::TinyLlamaOptions;

struct Loaded {
  std::vector<std::byte> bytes;
  std::shared_ptr<const GgufFile> file;
  explicit Loaded(const GgufBuilder& b) : bytes(b.finish()), file(GgufFile::parse(bytes, "mem")) {}
};

void refused(ErrorCode code, const std::string& part,
             const std::function<void(GgufBuilder*)>& change) {
  GgufBuilder b = test::tiny_llama_builder();
  change(&b);
  const Loaded loaded(b);
  check_error(code, part, [&] { check_tensors(*loaded.file, config_from_gguf(*loaded.file)); });
}

void refused_u32(ErrorCode code, const std::string& part, const std::string& key, uint32_t value) {
  refused(code, part, [&](GgufBuilder* b) {
    b->remove(key);
    b->add_u32(key, value);
  });
}

}  // namespace

TEST_CASE("gguf config: reads the keys of a llama model") {
  TinyLlamaOptions options;
  options.n_layers = 3;
  options.context_length = 77;
  const Loaded loaded(test::tiny_llama_builder(options));
  const ModelConfig c = config_from_gguf(*loaded.file);
  CHECK(c.architecture == "llama");
  CHECK(c.name == "tiny");
  CHECK(c.vocab_size == 300);
  CHECK(c.d_model == 64);
  CHECK(c.d_ff == 96);
  CHECK(c.n_layers == 3);
  CHECK(c.n_heads == 4);
  CHECK(c.n_kv_heads == 2);
  CHECK(c.head_dim == 16);
  CHECK(c.rotary_dim == 16);
  CHECK(c.context_length == 77);
  CHECK(c.rms_norm_eps == 1e-5F);
  CHECK(c.rope_base == 10000.0F);
  CHECK(c.rope_linear_scale == 1.0F);
  CHECK(c.rope_freq_factors.empty());
  CHECK(c.rope_style == RopeStyle::adjacent);
  CHECK(c.tied_lm_head);
  CHECK_FALSE(c.attention_bias);
  CHECK_NOTHROW(check_tensors(*loaded.file, c));
}

TEST_CASE("gguf config: separate head, biases and frequency factors are found") {
  TinyLlamaOptions options;
  options.tied_lm_head = false;
  options.attention_bias = true;
  options.rope_freqs = true;
  const Loaded loaded(test::tiny_llama_builder(options));
  const ModelConfig c = config_from_gguf(*loaded.file);
  CHECK_FALSE(c.tied_lm_head);
  CHECK(c.attention_bias);
  REQUIRE(c.rope_freq_factors.size() == 8);
  CHECK(c.rope_freq_factors[2] == 2.0F);
  CHECK_NOTHROW(check_tensors(*loaded.file, c));
}

TEST_CASE("gguf config: defaults of missing keys") {
  GgufBuilder b = test::tiny_llama_builder();
  for (const char* key : {"llama.attention.head_count_kv", "llama.attention.key_length",
                          "llama.attention.value_length", "llama.rope.dimension_count",
                          "llama.rope.freq_base", "llama.vocab_size", "general.name"}) {
    b.remove(key);
  }
  b.add_f32("llama.rope.scaling.factor", 4.0F);
  const ModelConfig c = config_from_gguf(*Loaded(b).file);
  CHECK(c.n_kv_heads == 4);
  CHECK(c.head_dim == 16);
  CHECK(c.rotary_dim == 16);
  CHECK(c.rope_base == 10000.0F);
  CHECK(c.vocab_size == 300);
  CHECK(c.rope_linear_scale == 4.0F);
  CHECK(c.name.empty());
}

TEST_CASE("gguf config: what is not built is refused as unsupported") {
  refused(ErrorCode::unsupported, "mem: architecture: expected \"llama\", found \"mamba?\"",
          [](GgufBuilder* b) {
            b->remove("general.architecture");
            b->add_string("general.architecture", "mamba\n");
          });
  refused(ErrorCode::unsupported, "found \"yarn\"",
          [](GgufBuilder* b) { b->add_string("llama.rope.scaling.type", "yarn"); });
  refused_u32(ErrorCode::unsupported, "llama.expert_count", "llama.expert_count", 8);
  refused_u32(ErrorCode::unsupported, "llama.attention.value_length: expected 16",
              "llama.attention.value_length", 8);
}

TEST_CASE("gguf config: absurd numbers are refused by name") {
  const ErrorCode bad = ErrorCode::bad_format;
  refused_u32(bad, "llama.attention.head_count: expected at least 1", "llama.attention.head_count",
              0);
  refused_u32(bad, "key/value heads: expected 1 to 4, found 0", "llama.attention.head_count_kv", 0);
  refused_u32(bad, "attention heads: expected a multiple of the 3", "llama.attention.head_count_kv",
              3);
  refused_u32(bad, "layers: expected 1 to 1024, found 0", "llama.block_count", 0);
  refused_u32(bad, "layers: expected 1 to 1024, found 100000", "llama.block_count", 100000);
  refused_u32(bad, "embedding length: expected 1 to 65536", "llama.embedding_length", 1U << 30);
  refused_u32(bad, "feed-forward length: expected 1 to 65792", "llama.feed_forward_length", 65793);
  refused_u32(bad, "key llama.context_length: expected at most", "llama.context_length",
              4000000000U);
  refused_u32(bad, "context length: expected 1 to", "llama.context_length", 0);
  refused_u32(bad, "rotary dimension: expected an even number, found 15",
              "llama.rope.dimension_count", 15);
  refused_u32(bad, "rotary dimension: expected 2 to 16, found 18", "llama.rope.dimension_count",
              18);
  refused_u32(bad, "head dimension: expected", "llama.attention.key_length", 0);
  refused(bad, "RMS norm epsilon: expected a finite number above 0", [](GgufBuilder* b) {
    b->remove("llama.attention.layer_norm_rms_epsilon");
    b->add_f32("llama.attention.layer_norm_rms_epsilon", std::numeric_limits<float>::quiet_NaN());
  });
  refused(bad, "rope base: expected a finite number above 0", [](GgufBuilder* b) {
    b->remove("llama.rope.freq_base");
    b->add_f32("llama.rope.freq_base", -1.0F);
  });
  refused(bad, "tensor rope_freqs.weight: expected [8], found [3]", [](GgufBuilder* b) {
    b->add_tensor("rope_freqs.weight", {3}, GgmlType::f32, {1, 1, 1});
  });
  refused(bad, "rope frequency factor: expected a finite number above 0", [](GgufBuilder* b) {
    b->add_tensor("rope_freqs.weight", {8}, GgmlType::f32, std::vector<float>(8, 0.0F));
  });
}

TEST_CASE("check_tensors: missing, misshapen and foreign tensors are named") {
  for (const char* name :
       {"token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.1.attn_q.weight",
        "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
        "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight",
        "blk.1.ffn_down.weight"}) {
    refused(ErrorCode::bad_format, std::string("mem: tensor ") + name + ": missing",
            [&](GgufBuilder* b) { b->remove_tensor(name); });
    refused(ErrorCode::bad_format, std::string("mem: tensor ") + name + ": expected [",
            [&](GgufBuilder* b) {
              b->remove_tensor(name);
              b->add_tensor(name, {7, 9}, GgmlType::f32, std::vector<float>(63));
            });
  }
  refused(ErrorCode::bad_format, "tensor blk.1.ffn_up.weight: expected [96, 64], found [95, 64]",
          [](GgufBuilder* b) {
            b->find_tensor("blk.1.ffn_up.weight")->dims = {64, 95};
          });
  refused(ErrorCode::unsupported, "tensor blk.0.ffn_gate.bias: not a part of",
          [](GgufBuilder* b) { b->add_tensor("blk.0.ffn_gate.bias", {1}, GgmlType::f32, {0}); });
}

TEST_CASE("check_tensors: a bias of one layer only is missing in the other") {
  TinyLlamaOptions options;
  options.attention_bias = true;
  GgufBuilder b = test::tiny_llama_builder(options);
  b.remove_tensor("blk.1.attn_v.bias");
  const Loaded loaded(b);
  check_error(ErrorCode::bad_format, "tensor blk.1.attn_v.bias: missing",
              [&] { check_tensors(*loaded.file, config_from_gguf(*loaded.file)); });
}

}  // namespace qllm
