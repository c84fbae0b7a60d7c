// What both kinds of tokenizer share: special tokens, bos and eos, ids back to bytes.
#pragma once

#include <string>
#include <vector>

#include "text/special_tokens.h"
#include "text/tokenizer.h"

namespace qllm {

class TokenizerBase : public Tokenizer {
 public:
  TokenizerBase(const TokenizerBase&) = delete;  // the kinds keep views into pieces_
  TokenizerBase& operator=(const TokenizerBase&) = delete;

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const final;
  std::string piece(int32_t id, bool special) const final;
  std::string decode(std::span<const int32_t> ids, bool special) const final;
  const Vocab& vocab() const final { return vocab_; }
  bool is_end(int32_t id) const final;

 protected:
  /// `vocab` has passed check_vocab().
  explicit TokenizerBase(Vocab vocab);

  /// Appends the ids of a text without special tokens; `after_special`: at the beginning of the
  /// text or behind a special token. `state` is what new_state() made for this call of encode.
  struct CallState {
    virtual ~CallState() = default;
  };
  virtual std::unique_ptr<CallState> new_state() const = 0;
  virtual void encode_text(std::string_view text, bool after_special, CallState& state,
                           std::vector<int32_t>& ids) const = 0;

  const std::vector<TokenType>& types() const { return types_; }
  bool is_control(int32_t id) const;  // control or unknown: not to be shown
  /// True for tokens that stand for text and may be the outcome of merging.
  bool is_mergeable(size_t id) const;

  /// The bytes of each token; filled by the constructors of the kinds.
  std::vector<std::string> pieces_;

 private:
  void check_id(int32_t id) const;

  Vocab vocab_;
  std::vector<TokenType> types_;
  std::vector<bool> ends_;
  SpecialTokens special_;
};

/// True where decoding a text that begins with the token `id` takes off the space that encoding put
/// before it.
bool takes_off_space(const Vocab& vocab, int32_t id);

}  // namespace qllm
