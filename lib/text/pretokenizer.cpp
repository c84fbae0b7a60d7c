#include "text/pretokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "text/pretokenizer_rules.h"
#include "text/utf8.h"

namespace qllm {
namespace {

const PreTokenizerRule& rule_of(std::string_view pre) {
  for (const PreTokenizerRule& rule : pretokenizer_rules()) {
    if (std::find(rule.names.begin(), rule.names.end(), pre) != rule.names.end()) return rule;
  }
  fail(ErrorCode::unsupported, "tokenizer: pre-tokenizer '{}' is not known; known are: {}", pre,
       known_pretokenizers());
}

}  // namespace

std::string known_pretokenizers() {
  std::string list;
  for (const PreTokenizerRule& rule : pretokenizer_rules()) {
    for (const std::string_view name : rule.names) {
      list.append(list.empty() ? "" : ", ").append(name);
    }
  }
  return list;
}

PreTokenizer::PreTokenizer(std::string_view pre) {
  const PreTokenizerRule& rule = rule_of(pre);
  ignore_merges_ = rule.ignore_merges;
  for (const std::string_view pattern : rule.patterns) levels_.emplace_back(pattern);
}

void PreTokenizer::split(std::string_view text, const PieceSink& sink) const {
  std::vector<Regex::ScratchPtr> scratch;
  for (const Regex& level : levels_) scratch.push_back(level.make_scratch());
  for (size_t at = 0; at < text.size();) {
    const size_t valid = utf8_valid_prefix(text.substr(at));
    if (valid > 0) split_level(0, text.substr(at, valid), scratch, sink);
    at += valid;
    const size_t invalid = utf8_invalid_prefix(text.substr(at));
    if (invalid > 0) sink(text.substr(at, invalid));
    at += invalid;
  }
}

void PreTokenizer::split_level(size_t level, std::string_view text,
                               const std::vector<Regex::ScratchPtr>& scratch,
                               const PieceSink& sink) const {
  if (level + 1 == levels_.size()) {
    levels_[level].split(text, *scratch[level], sink);
    return;
  }
  levels_[level].split(text, *scratch[level], [&](std::string_view piece) {
    split_level(level + 1, piece, scratch, sink);
  });
}

}  // namespace qllm
