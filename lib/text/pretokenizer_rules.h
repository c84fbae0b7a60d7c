// The table of pre-tokenizer rules. A new one is one more entry.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace qllm {

struct PreTokenizerRule {
  std::vector<std::string_view> names;     // values of tokenizer.ggml.pre
  std::vector<std::string_view> patterns;  // applied one after the other, each to what is left
  bool ignore_merges = false;
};

std::span<const PreTokenizerRule> pretokenizer_rules();

}  // namespace qllm
