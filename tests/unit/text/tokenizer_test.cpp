#include "text/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "qllm/error.hpp"
#include "unit/text/golden.h"

namespace qllm {
namespace {

constexpr EncodeOptions kPlain{false, false};
constexpr EncodeOptions kParse{false, true};

// 256 bytes, some merges over "ab", two control tokens and a user-defined one.
Vocab small_bpe() {
  const auto data = test::read_golden("tokenizer_bpe.json");
  Vocab vocab = test::golden_bpe_vocab(data.at("vocabularies").at(1));
  vocab.tokens.emplace_back("<tool>");
  vocab.types.push_back(TokenType::user_defined);
  return vocab;
}

Vocab small_spm() { return test::golden_spm_vocab(test::read_golden("tokenizer_spm.json")); }

int32_t id_of(const Vocab& vocab, const std::string& token) {
  const auto found = std::find(vocab.tokens.begin(), vocab.tokens.end(), token);
  REQUIRE(found != vocab.tokens.end());
  return static_cast<int32_t>(found - vocab.tokens.begin());
}

std::string random_bytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random() & 0xFF);
  return bytes;
}

void check_fails(Vocab vocab, ErrorCode code, const std::string& part) {
  try {
    make_tokenizer(std::move(vocab));
    FAIL("no error for: " << part);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    CHECK_MESSAGE(std::string(error.what()).find(part) != std::string::npos, error.what());
  }
}

}  // namespace

TEST_CASE("bpe tokenizer: every rule gives the ids of the published implementation") {
  const auto data = test::read_golden("tokenizer_bpe.json");
  const auto texts = data.at("texts").get<std::vector<std::string>>();
  REQUIRE(data.at("vocabularies").size() >= 11);
  for (const auto& entry : data.at("vocabularies")) {
    const auto tokenizer = make_tokenizer(test::golden_bpe_vocab(entry));
    for (size_t i = 0; i < texts.size(); ++i) {
      CAPTURE(entry.at("pre").get<std::string>());
      CAPTURE(texts[i]);
      const auto plain = entry.at("ids").at(i).get<std::vector<int32_t>>();
      const auto parsed = entry.at("ids_parse_special").at(i).get<std::vector<int32_t>>();
      CHECK(tokenizer->encode(texts[i], kPlain) == plain);
      CHECK(tokenizer->encode(texts[i], kParse) == parsed);
      CHECK(tokenizer->decode(plain) == texts[i]);
      CHECK(tokenizer->decode(parsed, true) == texts[i]);
    }
  }
}

TEST_CASE("spm tokenizer: gives the ids of sentencepiece") {
  const auto data = test::read_golden("tokenizer_spm.json");
  const auto texts = data.at("texts").get<std::vector<std::string>>();
  const auto tokenizer = make_tokenizer(test::golden_spm_vocab(data));
  for (size_t i = 0; i < texts.size(); ++i) {
    CAPTURE(texts[i]);
    const auto ids = tokenizer->encode(texts[i], kPlain);
    CHECK(ids == data.at("ids").at(i).get<std::vector<int32_t>>());
    CHECK(tokenizer->decode(ids) == texts[i]);
  }
}

TEST_CASE("tokenizer: bos and eos come with add_special alone") {
  for (Vocab vocab : {small_bpe(), small_spm()}) {
    vocab.bos = 1;
    vocab.eos = 2;
    const auto bare = make_tokenizer(vocab)->encode("ab", {true, false});
    vocab.add_bos = vocab.add_eos = true;
    const auto tokenizer = make_tokenizer(vocab);
    auto expected = bare;
    expected.insert(expected.begin(), 1);
    expected.push_back(2);
    CHECK(tokenizer->encode("ab", {true, false}) == expected);
    CHECK(tokenizer->encode("ab", {false, false}) == bare);
    CHECK(tokenizer->encode("", {true, false}) == std::vector<int32_t>{1, 2});
  }
}

TEST_CASE("tokenizer: control tokens need parse_special, user-defined tokens do not") {
  const Vocab vocab = small_bpe();
  const auto tokenizer = make_tokenizer(vocab);
  const int32_t end = id_of(vocab, "<|end|>");
  const int32_t tool = id_of(vocab, "<tool>");
  const auto count = [](const std::vector<int32_t>& ids, int32_t id) {
    return std::count(ids.begin(), ids.end(), id);
  };
  const std::string text = "a<|end|>b<tool>c<|end|>";
  CHECK(count(tokenizer->encode(text, kPlain), end) == 0);
  CHECK(count(tokenizer->encode(text, kParse), end) == 2);
  CHECK(count(tokenizer->encode(text, kPlain), tool) == 1);
  CHECK(tokenizer->piece(end).empty());
  CHECK(tokenizer->piece(end, true) == "<|end|>");
  CHECK(tokenizer->piece(tool) == "<tool>");
}

TEST_CASE("tokenizer: of special tokens that begin alike the longest is taken") {
  Vocab vocab = small_bpe();
  for (const char* token : {"<x", "<x>", "<x>>y"}) {
    vocab.tokens.emplace_back(token);
    vocab.types.push_back(TokenType::user_defined);
  }
  const auto ids = make_tokenizer(vocab)->encode("<x>><x>>y<x", kPlain);
  REQUIRE(ids.size() == 4);
  CHECK(ids[0] == id_of(vocab, "<x>"));
  CHECK(ids[1] == id_of(vocab, ">"));
  CHECK(ids[2] == id_of(vocab, "<x>>y"));
  CHECK(ids[3] == id_of(vocab, "<x"));
}

TEST_CASE("tokenizer: is_end knows eos, eot and the usual names") {
  Vocab vocab = small_bpe();
  vocab.eos = id_of(vocab, "<|end|>");
  vocab.tokens.emplace_back("<|im_end|>");
  vocab.types.push_back(TokenType::control);
  const auto tokenizer = make_tokenizer(vocab);
  CHECK(tokenizer->is_end(vocab.eos));
  CHECK(tokenizer->is_end(id_of(vocab, "<|im_end|>")));
  CHECK_FALSE(tokenizer->is_end(id_of(vocab, "<|begin|>")));
  CHECK_FALSE(tokenizer->is_end(0));
}

TEST_CASE("tokenizer: an id outside the vocabulary is an invalid argument") {
  for (const Vocab& vocab : {small_bpe(), small_spm()}) {
    const auto tokenizer = make_tokenizer(vocab);
    const auto size = static_cast<int32_t>(vocab.tokens.size());
    for (const int32_t id : {-1, size, INT32_MAX, INT32_MIN}) {
      CHECK_THROWS_AS(tokenizer->piece(id), Error);
      CHECK_THROWS_AS(tokenizer->is_end(id), Error);
      const std::vector<int32_t> ids{0, id};
      CHECK_THROWS_AS(tokenizer->decode(ids), Error);
    }
  }
}

TEST_CASE("tokenizer: any bytes come back as they went in") {
  const auto bpe = make_tokenizer(small_bpe());
  const auto spm = make_tokenizer(small_spm());
  std::vector<std::string> texts{"\x80",     "a\xBF\xBF b",  "\xE2\x96",         "\xF0\x9F\x98",
                                 "\xC0\xAF", "\xED\xA0\x80", "\xF5\x80\x80\x80", "ok \xFF ok"};
  for (uint32_t seed = 0; seed < 50; ++seed) texts.push_back(random_bytes(300, seed));
  for (const std::string& text : texts) {
    CHECK(bpe->decode(bpe->encode(text, kPlain)) == text);
    CHECK(spm->decode(spm->encode(text, kPlain)) == text);
  }
}

TEST_CASE("tokenizer: megabytes without a break take no more than their share of time") {
  const auto bpe = make_tokenizer(small_bpe());
  const auto spm = make_tokenizer(small_spm());
  const auto start = std::chrono::steady_clock::now();
  const size_t size = size_t{1} << 20;
  std::string letters_behind_space(size, ' ');
  letters_behind_space += "\xE4\xB8\x80";
  for (const std::string& text :
       {std::string(size, 'a'), std::string(size, ' '), std::string(size, '\n'),
        std::string(size, '\x80'), letters_behind_space, random_bytes(size, 1)}) {
    CHECK(bpe->decode(bpe->encode(text, kPlain)) == text);
    CHECK(spm->decode(spm->encode(text, kPlain)) == text);
  }
  // A quadratic algorithm needs hours; the limit leaves room for sanitizers on a busy machine.
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::minutes(5));
}

TEST_CASE("make_tokenizer: refuses vocabularies that do not hold together") {
  const auto with = [](Vocab vocab, auto change) {
    change(vocab);
    return vocab;
  };
  check_fails({}, ErrorCode::bad_format, "empty");
  check_fails(with(small_bpe(), [](Vocab& v) { v.pre = "nonsense"; }), ErrorCode::unsupported,
              "'nonsense' is not known; known are: default, smollm");
  check_fails(with(small_bpe(), [](Vocab& v) { v.eos = 100000; }), ErrorCode::bad_format,
              "eos token: id 100000");
  check_fails(with(small_bpe(), [](Vocab& v) { v.unk = -2; }), ErrorCode::bad_format, "unk");
  check_fails(with(small_bpe(), [](Vocab& v) { v.types.pop_back(); }), ErrorCode::bad_format,
              "token types");
  check_fails(with(small_bpe(), [](Vocab& v) { v.merges[3] = "nospace"; }), ErrorCode::bad_format,
              "merge 3");
  check_fails(with(small_bpe(), [](Vocab& v) { v.merges[0] = "a zzzzzz"; }), ErrorCode::bad_format,
              "not in the vocabulary");
  check_fails(with(small_bpe(), [](Vocab& v) { v.types[0] = static_cast<TokenType>(9); }),
              ErrorCode::bad_format, "type 9");
  check_fails(with(small_spm(), [](Vocab& v) { v.scores.pop_back(); }), ErrorCode::bad_format,
              "scores");
  check_fails(with(small_spm(), [](Vocab& v) { v.scores[5] = std::nanf(""); }),
              ErrorCode::bad_format, "score of token 5");
}

TEST_CASE("make_tokenizer: tokens spelt alike are tolerated, the first is used") {
  Vocab vocab = small_bpe();
  const int32_t first = id_of(vocab, "a");
  vocab.tokens.emplace_back("a");
  vocab.types.push_back(TokenType::normal);
  const auto tokenizer = make_tokenizer(vocab);
  CHECK(tokenizer->encode("a", kPlain) == std::vector<int32_t>{first});
  CHECK(tokenizer->piece(static_cast<int32_t>(vocab.tokens.size()) - 1) == "a");
}

TEST_CASE("bpe tokenizer: bytes without a token are left out, or unk where there is one") {
  Vocab vocab;
  vocab.tokens = {"a", "b", "<unk>"};
  vocab.types = {TokenType::normal, TokenType::normal, TokenType::unknown};
  CHECK(make_tokenizer(vocab)->encode("axb", kPlain) == std::vector<int32_t>{0, 1});
  vocab.unk = 2;
  CHECK(make_tokenizer(vocab)->encode("axb", kPlain) == std::vector<int32_t>{0, 2, 1});
}

}  // namespace qllm
