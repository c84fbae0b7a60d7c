// A LLaMA-like model by its sizes, as `qllm bench --synthetic` takes them.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <map>
#include <string>
#include <string_view>

#include "core/error.h"
#include "model/config.h"

namespace qllm::bench {

/// "d_model=2048,n_layers=16": what is not named is that of the 1.0 B shape. Throws
/// invalid_argument.
inline ModelConfig parse_model(std::string_view text) {
  ModelConfig c;
  c.architecture = "llama";
  c.name = "synthetic";
  c.vocab_size = 49152;
  c.d_model = 2048;
  c.d_ff = 8192;
  c.n_layers = 16;
  c.n_heads = 32;
  c.n_kv_heads = 8;
  c.head_dim = 64;
  c.context_length = 131072;
  c.tied_lm_head = true;
  const std::map<std::string_view, int64_t*> keys = {
      {"d_model", &c.d_model},       {"d_ff", &c.d_ff},
      {"n_layers", &c.n_layers},     {"n_heads", &c.n_heads},
      {"n_kv_heads", &c.n_kv_heads}, {"head_dim", &c.head_dim},
      {"vocab", &c.vocab_size}};
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const size_t equals = std::min(item.find('='), item.size());
    const auto key = keys.find(item.substr(0, equals));
    require(key != keys.end() && equals < item.size(), ErrorCode::invalid_argument,
            "model: expected KEY=N with a key of the documentation, found \"{}\"", item);
    const char* end = item.data() + item.size();
    const auto [stop, status] = std::from_chars(item.data() + equals + 1, end, *key->second);
    require(status == std::errc() && stop == end, ErrorCode::invalid_argument,
            "model: expected a number, found \"{}\"", item);
  }
  c.rotary_dim = c.head_dim;
  validate(c, "model");
  return c;
}

}  // namespace qllm::bench
