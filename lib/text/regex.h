// A compiled Unicode regular expression that cuts a text into pieces. Wraps PCRE2.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace qllm {

/// Receives the pieces of a text in order; end to end they are the text.
using PieceSink = std::function<void(std::string_view)>;

/// Immutable, safe for many threads; each thread brings its own Scratch.
class Regex {
 public:
  class Scratch;  // where PCRE2 writes a match
  struct ScratchDeleter {
    void operator()(Scratch* scratch) const noexcept;
  };
  using ScratchPtr = std::unique_ptr<Scratch, ScratchDeleter>;

  /// `pattern` in PCRE2's syntax, except that \s and \S mean Unicode's White_Space, as they do in
  /// the engines for which tokenizers were written (PCRE2's own \s also takes U+180E).
  /// Throws internal where it does not compile.
  explicit Regex(std::string_view pattern);

  ScratchPtr make_scratch() const;

  /// Hands `sink` every match and every stretch between matches. `text` is valid UTF-8.
  /// Where a match would cost more than a fixed effort, the rest of the text is one piece.
  void split(std::string_view text, Scratch& scratch, const PieceSink& sink) const;

 private:
  struct CodeDeleter {
    void operator()(void* code) const noexcept;
  };
  std::unique_ptr<void, CodeDeleter> code_;
};

}  // namespace qllm
