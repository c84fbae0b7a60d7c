#include "model/gguf_vocab.h"

#include <algorithm>
#include <array>
#include <limits>

#include "core/error.h"

namespace qllm {
namespace {

constexpr size_t kMaxTokens = size_t{4} << 20;

std::string key(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

TokenizerKind read_kind(const GgufFile& file) {
  const std::string_view model = file.get_string(key("model"));
  if (model == "gpt2") return TokenizerKind::bpe;
  if (model == "llama") return TokenizerKind::spm;
  fail(ErrorCode::unsupported, "{}: key {}: expected \"gpt2\" or \"llama\", found \"{}\"",
       file.origin(), key("model"), printable(model));
}

std::vector<std::string> own(const std::vector<std::string_view>& views) {
  return {views.begin(), views.end()};
}

void expect_count(const GgufFile& file, std::string_view name, size_t count, size_t expected) {
  require(count == expected, ErrorCode::bad_format, "{}: key {}: expected {} elements, found {}",
          file.origin(), key(name), expected, count);
}

std::vector<TokenType> read_types(const GgufFile& file, size_t tokens) {
  const auto numbers = file.find_i64s(key("token_type"));
  if (!numbers) return {};
  expect_count(file, "token_type", numbers->size(), tokens);
  std::vector<TokenType> types;
  types.reserve(tokens);
  for (const int64_t number : *numbers) {
    require(number >= 0 && number <= 6, ErrorCode::bad_format,
            "{}: key {}: expected 0 to 6, found {}", file.origin(), key("token_type"), number);
    types.push_back(static_cast<TokenType>(number));
  }
  return types;
}

std::vector<float> read_scores(const GgufFile& file, size_t tokens) {
  auto scores = file.find_f32s(key("scores"));
  require(scores.has_value(), ErrorCode::bad_format, "{}: key {}: missing", file.origin(),
          key("scores"));
  expect_count(file, "scores", scores->size(), tokens);
  return *std::move(scores);
}

/// A token id; `otherwise` where the key is missing and that id exists. Some writers put the 32-bit
/// -1 for none.
int32_t read_id(const GgufFile& file, std::string_view name, size_t tokens, int32_t otherwise) {
  const GgufValue* value = file.find(key(name));
  if (value == nullptr) return otherwise < static_cast<int64_t>(tokens) ? otherwise : -1;
  if (value->type == GgufValueType::i32 && value->bytes[3] == std::byte{0xFF}) return -1;
  const uint64_t id = file.get_u64(key(name));
  if (id == std::numeric_limits<uint32_t>::max()) return -1;
  require(id < tokens, ErrorCode::bad_format, "{}: key {}: expected an id below {}, found {}",
          file.origin(), key(name), tokens, id);
  return static_cast<int32_t>(id);
}

/// The token that ends a turn, known by its text where the file does not name it; best first.
int32_t find_end_of_turn(const Vocab& vocab) {
  constexpr std::array<std::string_view, 6> kTexts{"<|eot_id|>",    "<|im_end|>",      "<|end|>",
                                                   "<end_of_turn>", "<|end_of_text|>", "<EOT>"};
  for (const std::string_view text : kTexts) {
    const auto it = std::find(vocab.tokens.begin(), vocab.tokens.end(), text);
    if (it != vocab.tokens.end()) return static_cast<int32_t>(it - vocab.tokens.begin());
  }
  return -1;
}

/// Pre-tokenizers whose models want a bos token where the file does not say.
bool bpe_adds_bos(std::string_view pre) {
  constexpr std::array<std::string_view, 7> kNames{"llama3",  "llama-v3", "llama-bpe", "falcon3",
                                                   "pixtral", "tekken",   "chameleon"};
  return std::find(kNames.begin(), kNames.end(), pre) != kNames.end();
}

void read_bpe(const GgufFile& file, Vocab* vocab) {
  vocab->merges = own(file.get_strings(key("merges")));
  vocab->add_bos = bpe_adds_bos(vocab->pre);
  vocab->add_space_prefix = false;
}

void read_spm(const GgufFile& file, Vocab* vocab) {
  vocab->scores = read_scores(file, vocab->tokens.size());
  vocab->add_bos = true;
  vocab->add_space_prefix = true;
}

void read_special_tokens(const GgufFile& file, Vocab* vocab) {
  const size_t tokens = vocab->tokens.size();
  const bool spm = vocab->kind == TokenizerKind::spm;
  vocab->bos = read_id(file, "bos_token_id", tokens, spm ? 1 : -1);
  vocab->eos = read_id(file, "eos_token_id", tokens, spm ? 2 : -1);
  vocab->unk = read_id(file, "unknown_token_id", tokens, spm ? 0 : -1);
  vocab->pad = read_id(file, "padding_token_id", tokens, -1);
  vocab->eot = read_id(file, "eot_token_id", tokens, -1);
  if (vocab->eot < 0) vocab->eot = find_end_of_turn(*vocab);
}

}  // namespace

Vocab vocab_from_gguf(const GgufFile& file) {
  Vocab vocab;
  vocab.kind = read_kind(file);
  vocab.pre = file.find_string(key("pre")).value_or("default");
  vocab.tokens = own(file.get_strings(key("tokens")));
  require(!vocab.tokens.empty() && vocab.tokens.size() <= kMaxTokens, ErrorCode::bad_format,
          "{}: key {}: expected 1 to {} tokens, found {}", file.origin(), key("tokens"), kMaxTokens,
          vocab.tokens.size());
  vocab.types = read_types(file, vocab.tokens.size());
  if (vocab.kind == TokenizerKind::bpe) {
    read_bpe(file, &vocab);
  } else {
    read_spm(file, &vocab);
  }
  read_special_tokens(file, &vocab);
  vocab.add_bos = file.find_bool(key("add_bos_token")).value_or(vocab.add_bos);
  vocab.add_eos = file.find_bool(key("add_eos_token")).value_or(false);
  vocab.add_space_prefix = file.find_bool(key("add_space_prefix")).value_or(vocab.add_space_prefix);
  vocab.chat_template = file.find_string("tokenizer.chat_template").value_or("");
  return vocab;
}

}  // namespace qllm
