#include "text/detokenizer.h"

#include <doctest/doctest.h>

#include "text/utf8.h"
#include "unit/text/golden.h"

namespace qllm {
namespace {

// A vocabulary of the 256 bytes, so that ids are bytes.
Vocab byte_vocab() {
  Vocab vocab;
  vocab.kind = TokenizerKind::spm;
  vocab.add_space_prefix = false;
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kHex[] = "0123456789ABCDEF";
    vocab.tokens.push_back(std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">");
  }
  vocab.scores.assign(256, 0.0F);
  vocab.types.assign(256, TokenType::byte);
  return vocab;
}

std::string stream(const std::string& bytes) {
  const auto tokenizer = make_tokenizer(byte_vocab());
  StreamingDetokenizer detokenizer(*tokenizer);
  std::string out;
  for (const char c : bytes) {
    const std::string part = detokenizer.push(static_cast<uint8_t>(c));
    CHECK(utf8_valid_prefix(part) == part.size());
    out += part;
  }
  return out + detokenizer.finish();
}

}  // namespace

TEST_CASE("streaming detokenizer: every part is whole UTF-8, and the parts are the text") {
  const auto bpe = test::read_golden("tokenizer_bpe.json");
  const auto spm = test::read_golden("tokenizer_spm.json");
  const auto check = [](const Vocab& vocab, const nlohmann::json& texts) {
    const auto tokenizer = make_tokenizer(vocab);
    for (const std::string text : texts) {
      StreamingDetokenizer detokenizer(*tokenizer, true);
      std::string out;
      for (const int32_t id : tokenizer->encode(text, {false, false})) {
        const std::string part = detokenizer.push(id);
        CHECK(utf8_valid_prefix(part) == part.size());
        out += part;
      }
      CHECK(out + detokenizer.finish() == text);
    }
  };
  check(test::golden_bpe_vocab(bpe.at("vocabularies").at(0)), bpe.at("texts"));
  check(test::golden_spm_vocab(spm), spm.at("texts"));
}

TEST_CASE("streaming detokenizer: one U+FFFD for each maximal subpart of ill-formed UTF-8") {
  const std::string r(kReplacementCharacter);
  CHECK(stream("caf\xC3\xA9 \xF0\x9F\x98\x80") == "caf\xC3\xA9 \xF0\x9F\x98\x80");
  CHECK(stream("a\x80z") == "a" + r + "z");
  CHECK(stream("\xC0\xAF") == r + r);                  // overlong
  CHECK(stream("\xE0\x80\xAF") == r + r + r);          // overlong
  CHECK(stream("\xED\xA0\x80") == r + r + r);          // surrogate
  CHECK(stream("\xF4\x90\x80\x80") == r + r + r + r);  // above U+10FFFF
  CHECK(stream("\xF0\x9F\x98x") == r + "x");           // cut short: one subpart
  CHECK(stream("\xE2\x96\xE2\x96\x81") == r + "\xE2\x96\x81");
  CHECK(stream("ab\xF0\x9F") == "ab" + r);  // incomplete at the end
  // Example of the Unicode Standard, table 3-8.
  CHECK(stream("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r + r + r + r + "A");
}

TEST_CASE("streaming detokenizer: nothing is held back longer than it must be") {
  const auto tokenizer = make_tokenizer(byte_vocab());
  StreamingDetokenizer detokenizer(*tokenizer);
  CHECK(detokenizer.push(0xE2).empty());
  CHECK(detokenizer.push(0x96).empty());
  CHECK(detokenizer.push(0x81) == "\xE2\x96\x81");
  CHECK(detokenizer.push(0x41) == "A");
  CHECK(detokenizer.finish().empty());
}

TEST_CASE("streaming detokenizer: takes off the first word's space at the start alone") {
  const Vocab vocab = test::golden_spm_vocab(test::read_golden("tokenizer_spm.json"));
  const auto tokenizer = make_tokenizer(vocab);
  const auto ids = tokenizer->encode("the the", {false, false});
  for (const bool at_start : {true, false}) {
    StreamingDetokenizer detokenizer(*tokenizer, at_start);
    std::string out = detokenizer.push(vocab.bos);
    for (const int32_t id : ids) out += detokenizer.push(id);
    CHECK(out == (at_start ? "the the" : " the the"));
  }
}

}  // namespace qllm
