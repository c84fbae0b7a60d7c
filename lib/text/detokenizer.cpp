#include "text/detokenizer.h"

#include "text/tokenizer_base.h"
#include "text/utf8.h"

namespace qllm {

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, bool at_text_start,
                                           bool special)
    : tokenizer_(&tokenizer), at_text_start_(at_text_start), special_(special) {}

std::string StreamingDetokenizer::push(int32_t id) {
  std::string bytes = tokenizer_->piece(id, special_);
  // A control token is not text: it leaves the start of the text where it was.
  const bool is_text = !bytes.empty() && !tokenizer_->piece(id, false).empty();
  if (at_text_start_ && is_text) {
    at_text_start_ = false;
    if (bytes.front() == ' ' && takes_off_space(tokenizer_->vocab(), id)) bytes.erase(0, 1);
  }
  pending_.append(bytes);
  std::string out;
  utf8_drain(pending_, out);
  return out;
}

std::string StreamingDetokenizer::finish() {
  if (pending_.empty()) return {};
  pending_.clear();  // at most one incomplete sequence
  return std::string(kReplacementCharacter);
}

}  // namespace qllm
