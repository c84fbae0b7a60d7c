#include "text/tokenizer.h"

#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "text/bpe_tokenizer.h"
#include "text/spm_tokenizer.h"

namespace qllm {
namespace {

void check_id(const Vocab& vocab, const char* role, int32_t id) {
  require(id >= -1 && id < static_cast<int64_t>(vocab.tokens.size()), ErrorCode::bad_format,
          "tokenizer: {} token: id {} is outside the vocabulary of {} tokens", role, id,
          vocab.tokens.size());
}

void check_scores(const Vocab& vocab) {
  require(vocab.scores.size() == vocab.tokens.size(), ErrorCode::bad_format,
          "tokenizer: expected {} scores, one per token, found {}", vocab.tokens.size(),
          vocab.scores.size());
  for (size_t i = 0; i < vocab.scores.size(); ++i) {
    require(std::isfinite(vocab.scores[i]), ErrorCode::bad_format,
            "tokenizer: score of token {} is not a finite number", i);
  }
}

void check_vocab(const Vocab& vocab) {
  require(!vocab.tokens.empty(), ErrorCode::bad_format, "tokenizer: the vocabulary is empty");
  require(vocab.tokens.size() <= std::numeric_limits<int32_t>::max(), ErrorCode::bad_format,
          "tokenizer: {} tokens are more than ids can number", vocab.tokens.size());
  require(vocab.types.empty() || vocab.types.size() == vocab.tokens.size(), ErrorCode::bad_format,
          "tokenizer: expected {} token types, one per token, found {}", vocab.tokens.size(),
          vocab.types.size());
  for (size_t i = 0; i < vocab.types.size(); ++i) {
    require(vocab.types[i] <= TokenType::byte, ErrorCode::bad_format,
            "tokenizer: token {} has the unknown type {}", i, static_cast<int>(vocab.types[i]));
  }
  check_id(vocab, "bos", vocab.bos);
  check_id(vocab, "eos", vocab.eos);
  check_id(vocab, "eot", vocab.eot);
  check_id(vocab, "unk", vocab.unk);
  check_id(vocab, "pad", vocab.pad);
  require(vocab.merges.size() <= std::numeric_limits<uint32_t>::max(), ErrorCode::bad_format,
          "tokenizer: {} merges are more than can be ranked", vocab.merges.size());
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(Vocab vocab) {
  check_vocab(vocab);
  if (vocab.kind == TokenizerKind::bpe) return std::make_unique<BpeTokenizer>(std::move(vocab));
  check_scores(vocab);
  return std::make_unique<SpmTokenizer>(std::move(vocab));
}

}  // namespace qllm
