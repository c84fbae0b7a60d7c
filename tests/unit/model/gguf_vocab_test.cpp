#include "model/gguf_vocab.h"

#include <doctest/doctest.h>

#include "support/errors.h"
#include "support/tiny_llama.h"

namespace qllm {
namespace {

using test::check_error;
using test::GgufBuilder;

Vocab read(const GgufBuilder& b) {
  const auto bytes = b.finish();
  return vocab_from_gguf(*GgufFile::parse(bytes, "mem"));
}

GgufBuilder tiny(TokenizerKind kind) {
  test::TinyLlamaOptions options;
  options.tokenizer = kind;
  return test::tiny_llama_builder(options);
}

void refused(ErrorCode code, const std::string& part, const GgufBuilder& b) {
  check_error(code, part, [&] { read(b); });
}

}  // namespace

TEST_CASE("gguf vocab: byte-level BPE") {
  const Vocab v = read(tiny(TokenizerKind::bpe));
  CHECK(v.kind == TokenizerKind::bpe);
  CHECK(v.pre == "gpt-2");
  CHECK(v.tokens.size() == 300);
  CHECK(v.tokens[1] == "<|im_start|>");
  CHECK(v.types.size() == 300);
  CHECK(v.types[1] == TokenType::control);
  CHECK(v.types[3] == TokenType::normal);
  CHECK(v.merges.size() == 41);
  CHECK(v.scores.empty());
  CHECK(v.bos == 1);
  CHECK(v.eos == 2);
  CHECK(v.eot == 2);  // known by its text
  CHECK(v.unk == 0);
  CHECK(v.pad == 2);
  CHECK_FALSE(v.add_bos);
  CHECK_FALSE(v.add_eos);
  CHECK_FALSE(v.add_space_prefix);
  CHECK(v.chat_template.find("<|im_start|>") != std::string::npos);
}

TEST_CASE("gguf vocab: SentencePiece-style, with the defaults of missing keys") {
  GgufBuilder b = tiny(TokenizerKind::spm);
  for (const char* key :
       {"bos_token_id", "eos_token_id", "unknown_token_id", "pre", "token_type"}) {
    b.remove(std::string("tokenizer.ggml.") + key);
  }
  b.remove("tokenizer.chat_template");
  const Vocab v = read(b);
  CHECK(v.kind == TokenizerKind::spm);
  CHECK(v.scores.size() == v.tokens.size());
  CHECK(v.types.empty());
  CHECK(v.bos == 1);
  CHECK(v.eos == 2);
  CHECK(v.unk == 0);
  CHECK(v.pad == -1);
  CHECK(v.pre == "default");
  CHECK(v.add_bos);
  CHECK_FALSE(v.add_eos);
  CHECK(v.add_space_prefix);
  CHECK(v.chat_template.empty());
}

TEST_CASE("gguf vocab: what the file says of bos, eos and the first space counts") {
  GgufBuilder b = tiny(TokenizerKind::spm);
  b.add_bool("tokenizer.ggml.add_bos_token", false);
  b.add_bool("tokenizer.ggml.add_eos_token", true);
  b.add_bool("tokenizer.ggml.add_space_prefix", false);
  b.add_u32("tokenizer.ggml.eot_token_id", 7);
  const Vocab v = read(b);
  CHECK_FALSE(v.add_bos);
  CHECK(v.add_eos);
  CHECK_FALSE(v.add_space_prefix);
  CHECK(v.eot == 7);
}

TEST_CASE("gguf vocab: BPE adds bos by itself only for pre-tokenizers that want it") {
  for (const auto& [pre, adds] : {std::pair{"llama-bpe", true}, std::pair{"qwen2", false}}) {
    GgufBuilder b = tiny(TokenizerKind::bpe);
    b.remove("tokenizer.ggml.pre");
    b.remove("tokenizer.ggml.add_bos_token");
    b.add_string("tokenizer.ggml.pre", pre);
    CHECK(read(b).add_bos == adds);
  }
}

TEST_CASE("gguf vocab: an id of minus one is none") {
  for (const bool as_signed : {true, false}) {
    GgufBuilder b = tiny(TokenizerKind::bpe);
    b.remove("tokenizer.ggml.padding_token_id");
    if (as_signed) {
      b.add_i32("tokenizer.ggml.padding_token_id", -1);
    } else {
      b.add_u32("tokenizer.ggml.padding_token_id", UINT32_MAX);
    }
    CHECK(read(b).pad == -1);
  }
}

TEST_CASE("gguf vocab: what does not fit is refused by key") {
  const auto changed = [](TokenizerKind kind, const std::string& key) {
    GgufBuilder b = tiny(kind);
    b.remove("tokenizer.ggml." + key);
    return b;
  };
  GgufBuilder b = changed(TokenizerKind::bpe, "model");
  b.add_string("tokenizer.ggml.model", "bert");
  refused(ErrorCode::unsupported,
          "tokenizer.ggml.model: expected \"gpt2\" or \"llama\", found \"bert\"", b);
  b = changed(TokenizerKind::bpe, "tokens");
  b.add_strings("tokenizer.ggml.tokens", {});
  refused(ErrorCode::bad_format, "tokenizer.ggml.tokens: expected 1 to", b);
  b = changed(TokenizerKind::bpe, "token_type");
  b.add_i32s("tokenizer.ggml.token_type", {1, 1});
  refused(ErrorCode::bad_format, "tokenizer.ggml.token_type: expected 300 elements, found 2", b);
  b = changed(TokenizerKind::bpe, "token_type");
  b.add_i32s("tokenizer.ggml.token_type", std::vector<int32_t>(300, 7));
  refused(ErrorCode::bad_format, "tokenizer.ggml.token_type: expected 0 to 6, found 7", b);
  refused(ErrorCode::bad_format, "tokenizer.ggml.scores: missing",
          changed(TokenizerKind::spm, "scores"));
  b = changed(TokenizerKind::spm, "scores");
  b.add_f32s("tokenizer.ggml.scores", {1.0F});
  refused(ErrorCode::bad_format, "tokenizer.ggml.scores: expected 340 elements, found 1", b);
  b = changed(TokenizerKind::bpe, "eos_token_id");
  b.add_u32("tokenizer.ggml.eos_token_id", 300);
  refused(ErrorCode::bad_format, "tokenizer.ggml.eos_token_id: expected an id below 300, found 300",
          b);
}

}  // namespace qllm
