// SentencePiece-style tokenizer: merges the neighbours whose union has the best score.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "text/flat_table.h"
#include "text/tokenizer_base.h"

namespace qllm {

/// Spaces are written U+2581 in the vocabulary. A code point that no token covers becomes the byte
/// tokens <0xXX>, or unk where the vocabulary has none.
class SpmTokenizer final : public TokenizerBase {
 public:
  explicit SpmTokenizer(Vocab vocab);

 protected:
  std::unique_ptr<CallState> new_state() const override;
  void encode_text(std::string_view text, bool after_special, CallState& state,
                   std::vector<int32_t>& ids) const override;

 private:
  struct Merger;

  int32_t find(std::string_view escaped) const;  // -1: none
  void append_bytes(std::string_view code_point, std::vector<int32_t>& ids) const;

  TextIndex ids_;                        // of the vocabulary's tokens
  std::array<int32_t, 256> byte_ids_{};  // -1: none
  size_t longest_ = 0;                   // bytes of the longest token
};

}  // namespace qllm
