#include <doctest/doctest.h>

#include <random>
#include <string>

#include "qllm/roofline.hpp"
#include "support/errors.h"

using namespace qllm;
using namespace qllm::roofline;
using qllm::test::check_error;

namespace {

const std::string kLlama = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256,
  "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 8.0, "rope_type": "llama3"}, "tie_word_embeddings": false})";

const std::string kQwenMoe = R"({
  "model_type": "qwen2_moe", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632,
  "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
  "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
  "shared_expert_intermediate_size": 5632, "decoder_sparse_step": 2, "mlp_only_layers": [1, 5],
  "sliding_window": 32768, "use_sliding_window": false})";

Shape read(const std::string& text) { return shape_from_config(text, "config.json"); }

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

void refuses(ErrorCode code, const std::string& part, const std::string& text) {
  check_error(code, part, [&] { read(text); });
}

}  // namespace

TEST_CASE("roofline config: a dense model") {
  const Shape s = read(kLlama);
  const Shape p = preset("llama-8b");
  CHECK(s.vocab == p.vocab);
  CHECK(s.d_model == p.d_model);
  CHECK(s.d_ff == p.d_ff);
  CHECK(s.n_layers == p.n_layers);
  CHECK(s.n_heads == p.n_heads);
  CHECK(s.n_kv_heads == p.n_kv_heads);
  CHECK(s.head_dim == p.head_dim);
  CHECK(s.n_moe_layers == 0);
  CHECK_FALSE(s.qkv_bias);
}

TEST_CASE("roofline config: what model types add") {
  CHECK(read(replaced(kLlama, "\"llama\"", "\"qwen2\"")).qkv_bias);
  CHECK(read(replaced(kLlama, "\"llama\"", "\"qwen3\"")).qk_norm);
  const std::string windowed = replaced(kLlama, "\"model_type\": \"llama\"",
                                        "\"model_type\": \"mistral\", \"sliding_window\": 4096");
  CHECK(read(windowed).sliding_window == 4096);
  CHECK(read(replaced(windowed, "4096, \"vocab", "null, \"vocab")).sliding_window == 0);
  CHECK(read(replaced(kLlama, "\"num_key_value_heads\": 8,", "")).n_kv_heads == 32);
  CHECK(read(replaced(kLlama, "\"vocab_size\"", "\"head_dim\": 64, \"vocab_size\"")).head_dim ==
        64);
}

TEST_CASE("roofline config: experts") {
  const Shape s = read(kQwenMoe);
  CHECK(s.n_experts == 60);
  CHECK(s.n_experts_used == 4);
  CHECK(s.d_ff_expert == 1408);
  CHECK(s.d_ff_shared == 5632);
  CHECK(s.d_ff == 5632);
  CHECK(s.n_moe_layers == 10);  // of the twelve odd ones, without 1 and 5
  CHECK(s.qkv_bias);
  const Shape mixtral =
      read(replaced(replaced(kLlama, "\"llama\"", "\"mixtral\""), "\"vocab_size\"",
                    "\"num_local_experts\": 8, \"num_experts_per_tok\": 2, \"vocab_size\""));
  CHECK(mixtral.n_moe_layers == 32);
  CHECK(mixtral.d_ff_expert == 14336);
  CHECK(mixtral.d_ff_shared == 0);
}

TEST_CASE("roofline config: errors name the key") {
  refuses(ErrorCode::bad_format, "JSON", "");
  refuses(ErrorCode::bad_format, "JSON", "[1, 2]");
  refuses(ErrorCode::bad_format, "JSON", "{\"model_type\": \"llama\"");
  refuses(ErrorCode::bad_format, "model_type", "{}");
  refuses(ErrorCode::unsupported, "gpt2", replaced(kLlama, "\"llama\"", "\"gpt2\""));
  refuses(ErrorCode::unsupported, "\\u001b", replaced(kLlama, "\"llama\"", "\"\\u001b[31m\""));
  refuses(ErrorCode::bad_format, "hidden_size", replaced(kLlama, "\"hidden_size\": 4096,", ""));
  for (const char* bad :
       {"-4096", "4096.5", "\"4096\"", "1e30", "99999999999999999999", "[]", "0", "70000"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(read(replaced(kLlama, "4096", bad)), Error);
  }
  refuses(ErrorCode::bad_format, "key/value heads", replaced(kLlama, "_heads\": 8", "_heads\": 7"));
  refuses(ErrorCode::bad_format, "layers",
          replaced(kLlama, "layers\": 32", "layers\": 2000000000"));
  refuses(ErrorCode::bad_format, "attention heads",
          replaced(kLlama, "attention_heads\": 32", "attention_heads\": 0"));
  refuses(ErrorCode::bad_format, "num_experts_per_tok",
          replaced(kQwenMoe, "_per_tok\": 4", "_per_token\": 4"));
  refuses(ErrorCode::bad_format, "experts used",
          replaced(kQwenMoe, "_per_tok\": 4", "_per_tok\": 61"));
  refuses(ErrorCode::bad_format, "mlp_only_layers", replaced(kQwenMoe, "[1, 5]", "[1, 24]"));
  refuses(ErrorCode::bad_format, "mlp_only_layers", replaced(kQwenMoe, "[1, 5]", "[-1]"));
  refuses(ErrorCode::bad_format, "decoder_sparse_step",
          replaced(kQwenMoe, "step\": 2", "step\": 0"));
  refuses(ErrorCode::unsupported, "use_sliding_window",
          replaced(kQwenMoe, "window\": false", "window\": true"));
}

TEST_CASE("roofline config: whatever is done to it, a shape or an Error comes out") {
  std::mt19937 random(7);
  const auto below = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  const std::string numbers[] = {"0",     "-1",   "1",    "65536", "2147483648",
                                 "1e308", "null", "true", "{}"};
  for (int round = 0; round < 3000; ++round) {
    std::string text = round % 2 == 0 ? kLlama : kQwenMoe;
    for (size_t edits = 1 + below(3); edits > 0; --edits) {
      const size_t at = below(text.size());
      switch (below(4)) {
        case 0:
          text[at] = static_cast<char>(below(256));
          break;
        case 1:
          text.erase(at, 1 + below(20));
          break;
        case 2:
          text.insert(at, numbers[below(std::size(numbers))]);
          break;
        default: {
          const size_t digit = text.find_first_of("0123456789", at);
          if (digit != std::string::npos)
            text.replace(digit, 1, numbers[below(std::size(numbers))]);
        }
      }
      if (text.empty()) text.push_back(' ');
    }
    try {
      const Shape s = read(text);
      count_ops(s, {});  // a shape that is accepted can be counted
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
    }
  }
}

TEST_CASE("roofline config: files that are none") {
  check_error(ErrorCode::not_found, "no/such",
              [] { shape_from_config_file("no/such/config.json"); });
  check_error(ErrorCode::io, "/dev/null", [] { shape_from_config_file("/dev/null"); });
}
