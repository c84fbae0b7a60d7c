#include "text/tokenizer_base.h"

#include <utility>

#include "core/error.h"

namespace qllm {

TokenizerBase::TokenizerBase(Vocab vocab)
    : vocab_(std::move(vocab)),
      types_(token_types(vocab_)),
      ends_(end_tokens(vocab_, types_)),
      special_(vocab_.tokens, types_) {}

std::vector<int32_t> TokenizerBase::encode(std::string_view text,
                                           const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 2);
  if (options.add_special && vocab_.add_bos && vocab_.bos >= 0) ids.push_back(vocab_.bos);
  const auto state = new_state();
  bool after_special = true;
  special_.split(
      text, options.parse_special,
      [&](std::string_view stretch) {
        encode_text(stretch, after_special, *state, ids);
        after_special = false;
      },
      [&](int32_t id) {
        ids.push_back(id);
        after_special = true;
      });
  if (options.add_special && vocab_.add_eos && vocab_.eos >= 0) ids.push_back(vocab_.eos);
  return ids;
}

void TokenizerBase::check_id(int32_t id) const {
  require(id >= 0 && static_cast<size_t>(id) < pieces_.size(), ErrorCode::invalid_argument,
          "tokenizer: token id {} is outside the vocabulary of {} tokens", id, pieces_.size());
}

bool TokenizerBase::is_control(int32_t id) const {
  const TokenType type = types_[static_cast<size_t>(id)];
  return type == TokenType::control || type == TokenType::unknown;
}

bool TokenizerBase::is_mergeable(size_t id) const {
  return types_[id] != TokenType::control && types_[id] != TokenType::unknown &&
         types_[id] != TokenType::byte && !pieces_[id].empty();
}

std::string TokenizerBase::piece(int32_t id, bool special) const {
  check_id(id);
  if (!special && is_control(id)) return {};
  return pieces_[static_cast<size_t>(id)];
}

std::string TokenizerBase::decode(std::span<const int32_t> ids, bool special) const {
  std::string text;
  bool at_start = true;
  for (const int32_t id : ids) {
    check_id(id);
    const bool control = is_control(id);
    if (control && !special) continue;
    std::string_view bytes = pieces_[static_cast<size_t>(id)];
    if (at_start && !control && !bytes.empty()) {
      at_start = false;
      if (bytes.front() == ' ' && takes_off_space(vocab_, id)) bytes.remove_prefix(1);
    }
    text.append(bytes);
  }
  return text;
}

bool TokenizerBase::is_end(int32_t id) const {
  check_id(id);
  return ends_[static_cast<size_t>(id)];
}

bool takes_off_space(const Vocab& vocab, int32_t id) {
  if (vocab.kind != TokenizerKind::spm || !vocab.add_space_prefix) return false;
  return vocab.types.empty() || vocab.types[static_cast<size_t>(id)] == TokenType::normal;
}

}  // namespace qllm
