// Tokens that are recognised in a text before it is tokenized, and the roles that tokens play.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/vocab.h"

namespace qllm {

/// One per token: `vocab.types`, or, where the file has none, what the ids of bos, eos, … and the
/// spelling of the tokens (<|…|>, <0x0A>) tell.
std::vector<TokenType> token_types(const Vocab& vocab);

/// Ids of eos, eot and the tokens that are known by their name to end an answer; one flag per
/// token.
std::vector<bool> end_tokens(const Vocab& vocab, const std::vector<TokenType>& types);

/// Cuts a text at the special tokens written in it: leftmost first, of those the longest.
/// User-defined tokens are always recognised, control and unknown tokens with `parse_special`.
/// Costs a table lookup per byte, and more only where a token could begin.
class SpecialTokens {
 public:
  SpecialTokens(const std::vector<std::string>& tokens, const std::vector<TokenType>& types);

  /// Calls on_text for each non-empty stretch between special tokens, on_token for each of them.
  void split(std::string_view text, bool parse_special,
             const std::function<void(std::string_view)>& on_text,
             const std::function<void(int32_t)>& on_token) const;

 private:
  struct Node {
    int32_t user_defined = -1;  // token that ends here, -1: none
    int32_t control = -1;
  };
  struct Match {
    int32_t id = -1;
    size_t length = 0;
  };
  void add(std::string_view text, int32_t id, bool user_defined);
  Match longest_at(std::string_view text, bool parse_special) const;

  std::vector<Node> nodes_;                       // a trie; node 0 is its root
  std::unordered_map<uint64_t, uint32_t> edges_;  // node * 256 + byte -> node
  std::array<bool, 256> begins_token_{};
};

}  // namespace qllm
