// Turns a stream of token ids into text, never cutting a UTF-8 sequence in two.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace qllm {

/// Feed ids one at a time; each call returns what has become complete. Bytes that can no longer
/// become valid UTF-8 come out as U+FFFD.
class StreamingDetokenizer {
 public:
  /// `at_text_start`: take off the space that an spm encoder put before the first word.
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, bool at_text_start = false,
                                bool special = false);
  std::string push(int32_t id);
  /// What is left at the end; an incomplete sequence becomes U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool at_text_start_;
  bool special_;
  std::string pending_;
};

}  // namespace qllm
