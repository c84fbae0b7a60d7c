// Cuts a text into the words inside which byte-level BPE merges, by the rule that a vocabulary
// names.
#pragma once

#include <string_view>
#include <vector>

#include "text/regex.h"

namespace qllm {

class PreTokenizer {
 public:
  /// `pre` is tokenizer.ggml.pre. Throws unsupported, listing the known names, for any other.
  explicit PreTokenizer(std::string_view pre);

  /// A word that is a token as a whole is that token, whatever the merges would make of it.
  bool ignore_merges() const { return ignore_merges_; }

  /// Hands `sink` the words in order; end to end they are the text. Stretches of ill-formed UTF-8
  /// are words of their own.
  void split(std::string_view text, const PieceSink& sink) const;

 private:
  void split_level(size_t level, std::string_view text,
                   const std::vector<Regex::ScratchPtr>& scratch, const PieceSink& sink) const;

  std::vector<Regex> levels_;  // each cuts the pieces that the one before it left
  bool ignore_merges_ = false;
};

/// The names that PreTokenizer knows, ", " between them.
std::string known_pretokenizers();

}  // namespace qllm
