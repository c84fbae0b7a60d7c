#include "support/tiny_vocab.h"

#include <array>
#include <utility>
#include <vector>

#include "core/error.h"

namespace qllm::test {
namespace {

constexpr std::string_view kChatMl =
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

struct Tokens {
  std::vector<std::string> texts;
  std::vector<int32_t> types;
  std::vector<float> scores;

  void add(std::string text, TokenType type, float score = 0.0F) {
    texts.push_back(std::move(text));
    types.push_back(static_cast<int32_t>(type));
    scores.push_back(score);
  }

  void fill(int64_t size) {
    while (static_cast<int64_t>(texts.size()) < size) {
      add("<unused_" + std::to_string(texts.size()) + ">", TokenType::unused);
    }
  }
};

std::string utf8(uint32_t code) {  // below U+0800
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0U | (code >> 6)), static_cast<char>(0x80U | (code & 0x3FU))};
}

bool is_printable_latin1(uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/// GPT-2's alphabet: a printable byte is itself, the others are U+0100 and on, in order.
std::array<std::string, 256> byte_alphabet() {
  std::array<std::string, 256> letters;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    letters[byte] = utf8(is_printable_latin1(byte) ? byte : next++);
  }
  return letters;
}

// "_" stands for the space letter U+0120. Each side is a byte or made by a merge above it.
constexpr std::array<std::pair<std::string_view, std::string_view>, 41> kMerges{{
    {"_", "t"},   {"_", "a"},     {"h", "e"}, {"i", "n"},   {"r", "e"},    {"o", "n"},
    {"_t", "he"}, {"e", "r"},     {"a", "t"}, {"_", "s"},   {"_", "o"},    {"e", "n"},
    {"_", "c"},   {"i", "t"},     {"i", "s"}, {"o", "r"},   {"n", "d"},    {"e", "s"},
    {"_", "w"},   {"_", "b"},     {"o", "u"}, {"_", "f"},   {"in", "g"},   {"_", "p"},
    {"_a", "nd"}, {"_o", "f"},    {"l", "l"}, {"a", "n"},   {"_", "m"},    {"_t", "o"},
    {"_", "d"},   {"_", "in"},    {"e", "d"}, {"o", "m"},   {"_", "h"},    {"_w", "or"},
    {"l", "d"},   {"_wor", "ld"}, {"H", "e"}, {"He", "ll"}, {"Hell", "o"},
}};

std::string with_space(std::string_view text, const std::string& space) {
  std::string out;
  for (const char c : text) out += c == '_' ? space : std::string(1, c);
  return out;
}

void add_common(const Tokens& tokens, GgufBuilder* b) {
  b->add_strings("tokenizer.ggml.tokens", tokens.texts);
  b->add_i32s("tokenizer.ggml.token_type", tokens.types);
  b->add_string("tokenizer.chat_template", kChatMl);
}

void add_bpe(const std::string& pre, int64_t vocab_size, GgufBuilder* b) {
  const std::array<std::string, 256> letters = byte_alphabet();
  Tokens tokens;
  for (const char* text : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    tokens.add(text, TokenType::control);
  }
  for (const std::string& letter : letters) tokens.add(letter, TokenType::normal);
  std::vector<std::string> merges;
  for (const auto& [left, right] : kMerges) {
    const std::string a = with_space(left, letters[' ']);
    const std::string c = with_space(right, letters[' ']);
    merges.push_back(a + " " + c);
    tokens.add(a + c, TokenType::normal);
  }
  tokens.fill(vocab_size);
  b->add_string("tokenizer.ggml.model", "gpt2");
  b->add_string("tokenizer.ggml.pre", pre);
  add_common(tokens, b);
  b->add_strings("tokenizer.ggml.merges", merges);
  b->add_u32("tokenizer.ggml.bos_token_id", 1);
  b->add_u32("tokenizer.ggml.eos_token_id", 2);
  b->add_u32("tokenizer.ggml.unknown_token_id", 0);
  b->add_u32("tokenizer.ggml.padding_token_id", 2);
  b->add_bool("tokenizer.ggml.add_bos_token", false);
}

void add_spm_pieces(Tokens* tokens) {
  const std::string space = "\xE2\x96\x81";  // U+2581
  float score = -1.0F;                       // better pieces first
  for (const char* piece :
       {"_t",     "he", "_the", "_a",   "in",    "er",     "_w", "or", "ld",   "_wor",
        "_world", "He", "ll",   "Hell", "Hello", "_Hello", "an", "nd", "_and", "ing"}) {
    tokens->add(with_space(piece, space), TokenType::normal, score);
    score -= 1.0F;
  }
  tokens->add(space, TokenType::normal, score);
  for (char c = 'a'; c <= 'z'; ++c)
    tokens->add(std::string(1, c), TokenType::normal, score -= 1.0F);
  for (char c = 'A'; c <= 'Z'; ++c)
    tokens->add(std::string(1, c), TokenType::normal, score -= 1.0F);
}

void add_spm(int64_t vocab_size, GgufBuilder* b) {
  Tokens tokens;
  tokens.add("<unk>", TokenType::unknown);
  tokens.add("<s>", TokenType::control);
  tokens.add("</s>", TokenType::control);
  for (int byte = 0; byte < 256; ++byte) {
    tokens.add(fmt::format("<0x{:02X}>", byte), TokenType::byte);
  }
  add_spm_pieces(&tokens);
  tokens.add("<|im_start|>", TokenType::control);
  tokens.add("<|im_end|>", TokenType::control);
  tokens.fill(vocab_size);
  b->add_string("tokenizer.ggml.model", "llama");
  b->add_string("tokenizer.ggml.pre", "default");
  add_common(tokens, b);
  b->add_f32s("tokenizer.ggml.scores", tokens.scores);
  b->add_u32("tokenizer.ggml.bos_token_id", 1);
  b->add_u32("tokenizer.ggml.eos_token_id", 2);
  b->add_u32("tokenizer.ggml.unknown_token_id", 0);
}

}  // namespace

int64_t tiny_vocab_least(TokenizerKind kind) { return kind == TokenizerKind::bpe ? 300 : 340; }

void add_tiny_vocab(TokenizerKind kind, const std::string& pre, int64_t vocab_size,
                    GgufBuilder* builder) {
  if (kind == TokenizerKind::bpe) {
    add_bpe(pre, vocab_size, builder);
  } else {
    add_spm(vocab_size, builder);
  }
}

}  // namespace qllm::test
