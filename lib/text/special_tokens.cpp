#include "text/special_tokens.h"

#include <algorithm>

namespace qllm {
namespace {

// Names under which published models know the end of a turn or of a text.
constexpr std::array<std::string_view, 19> kEndNames = {
    "</s>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<eos>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<|eot|>",
    "<|end_of_turn|>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "<|endofturn|>"};

bool in_angle_bars(std::string_view token) {
  return token.size() > 4 && token.starts_with("<|") && token.ends_with("|>");
}

bool is_byte_name(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.back() == '>';
}

}  // namespace

std::vector<TokenType> token_types(const Vocab& vocab) {
  if (!vocab.types.empty()) return vocab.types;
  std::vector<TokenType> types(vocab.tokens.size(), TokenType::normal);
  for (size_t i = 0; i < types.size(); ++i) {
    if (vocab.kind == TokenizerKind::spm && is_byte_name(vocab.tokens[i]))
      types[i] = TokenType::byte;
    if (in_angle_bars(vocab.tokens[i])) types[i] = TokenType::control;
  }
  for (const int32_t id : {vocab.bos, vocab.eos, vocab.eot, vocab.pad}) {
    if (id >= 0) types[static_cast<size_t>(id)] = TokenType::control;
  }
  if (vocab.unk >= 0) types[static_cast<size_t>(vocab.unk)] = TokenType::unknown;
  return types;
}

std::vector<bool> end_tokens(const Vocab& vocab, const std::vector<TokenType>& types) {
  std::vector<bool> ends(vocab.tokens.size(), false);
  bool has_return = false;
  for (size_t i = 0; i < ends.size(); ++i) {
    const bool special = types[i] == TokenType::control || types[i] == TokenType::user_defined;
    const auto* name = std::find(kEndNames.begin(), kEndNames.end(), vocab.tokens[i]);
    ends[i] = special && name != kEndNames.end();
    has_return = has_return || (special && vocab.tokens[i] == "<|return|>");
  }
  // Where an answer ends in <|return|>, <|end|> only parts the messages inside it.
  for (size_t i = 0; has_return && i < ends.size(); ++i) {
    if (vocab.tokens[i] == "<|end|>") ends[i] = false;
  }
  for (const int32_t id : {vocab.eos, vocab.eot}) {
    if (id >= 0) ends[static_cast<size_t>(id)] = true;
  }
  return ends;
}

SpecialTokens::SpecialTokens(const std::vector<std::string>& tokens,
                             const std::vector<TokenType>& types)
    : nodes_(1) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool user_defined = types[i] == TokenType::user_defined;
    const bool control = types[i] == TokenType::control || types[i] == TokenType::unknown;
    if (user_defined || control) add(tokens[i], static_cast<int32_t>(i), user_defined);
  }
}

void SpecialTokens::add(std::string_view text, int32_t id, bool user_defined) {
  if (text.empty()) return;
  begins_token_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char c : text) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<uint8_t>(c);
    const auto [found, is_new] = edges_.try_emplace(edge, static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = found->second;
  }
  int32_t& slot = user_defined ? nodes_[node].user_defined : nodes_[node].control;
  if (slot < 0) slot = id;  // of tokens spelt alike the first
}

SpecialTokens::Match SpecialTokens::longest_at(std::string_view text, bool parse_special) const {
  Match best;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    const Node& here = nodes_[node];
    if (parse_special && here.control >= 0) best = {here.control, i + 1};
    if (here.user_defined >= 0) best = {here.user_defined, i + 1};
  }
  return best;
}

void SpecialTokens::split(std::string_view text, bool parse_special,
                          const std::function<void(std::string_view)>& on_text,
                          const std::function<void(int32_t)>& on_token) const {
  size_t begin = 0;
  size_t at = 0;
  while (at < text.size()) {
    const bool candidate = begins_token_[static_cast<uint8_t>(text[at])];
    const Match match = candidate ? longest_at(text.substr(at), parse_special) : Match{};
    if (match.id < 0) {
      ++at;
      continue;
    }
    if (at > begin) on_text(text.substr(begin, at - begin));
    on_token(match.id);
    at += match.length;
    begin = at;
  }
  if (begin < text.size()) on_text(text.substr(begin));
}

}  // namespace qllm
