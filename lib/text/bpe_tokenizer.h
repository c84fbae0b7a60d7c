// Byte-level byte-pair encoding, as in GPT-2 and most models since.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "text/flat_table.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_base.h"

namespace qllm {

/// Bytes without a token of their own give unk where the vocabulary has a token of type unknown,
/// and are left out where it has none, as in the implementations with which such models were
/// trained.
class BpeTokenizer final : public TokenizerBase {
 public:
  /// Throws bad_format for merges that do not hold together, unsupported for an unknown `pre`.
  explicit BpeTokenizer(Vocab vocab);

 protected:
  std::unique_ptr<CallState> new_state() const override;
  void encode_text(std::string_view text, bool after_special, CallState& state,
                   std::vector<int32_t>& ids) const override;

 private:
  struct Merge {
    uint32_t rank;  // the lower, the sooner
    int32_t id;     // what the pair becomes
  };
  struct Merger;
  struct WordCache;

  const std::vector<std::string>& make_pieces();
  void read_merges();
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;
  const Merge* find_merge(int32_t left, int32_t right) const;

  PreTokenizer pretokenizer_;
  int32_t unknown_ = -1;                 // for bytes without a token; -1: none
  std::array<int32_t, 256> byte_ids_{};  // -1: none
  TextIndex ids_;                        // of pieces_
  NumberTable<Merge> merges_;            // by left id << 32 | right id
};

}  // namespace qllm
