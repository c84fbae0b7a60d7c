// libFuzzer target: any bytes through the tokenizers, their decoders and the chat templates.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "qllm/error.hpp"
#include "text/byte_alphabet.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using namespace qllm;

void expect(bool ok) {
  if (!ok) std::abort();
}

void add(Vocab& vocab, const std::string& token, TokenType type) {
  vocab.tokens.push_back(token);
  vocab.types.push_back(type);
  vocab.scores.push_back(-static_cast<float>(vocab.tokens.size()));
}

void add_specials(Vocab& vocab) {
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<|"}) {
    add(vocab, token, TokenType::control);
  }
  for (const char* token : {"  ", "<tool>", "<to"}) add(vocab, token, TokenType::user_defined);
  vocab.bos = vocab.eos = static_cast<int32_t>(vocab.tokens.size()) - 6;
}

Vocab bpe_vocab(const char* pre) {
  Vocab vocab;
  vocab.pre = pre;
  for (int byte = 0; byte < 256; ++byte) {
    add(vocab, alphabet_from_bytes(std::string(1, static_cast<char>(byte))), TokenType::normal);
  }
  for (const char* merge : {"a a", "aa aa", "a b", "ab a", "\xC4\xA0 a", "\xC3\xA2 \xC4\xB8"}) {
    vocab.merges.emplace_back(merge);
    std::string token(merge);
    add(vocab, token.erase(token.find(' '), 1), TokenType::normal);
  }
  add_specials(vocab);
  return vocab;
}

Vocab spm_vocab() {
  Vocab vocab;
  vocab.kind = TokenizerKind::spm;
  add(vocab, "<unk>", TokenType::unknown);
  constexpr char kHex[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    add(vocab, std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">", TokenType::byte);
  }
  for (const char* token : {"aa", "ab",
                            "\xE2\x96\x81"
                            "a",
                            "aaa", "a", "b", "\xE2\x96\x81", "\xE4\xB8\x80"}) {
    add(vocab, token, TokenType::normal);
  }
  vocab.unk = 0;
  add_specials(vocab);
  return vocab;
}

const Tokenizer& tokenizer_for(uint8_t choice) {
  static const std::unique_ptr<Tokenizer> tokenizers[] = {
      make_tokenizer(bpe_vocab("default")),     make_tokenizer(bpe_vocab("smollm")),
      make_tokenizer(bpe_vocab("llama-bpe")),   make_tokenizer(bpe_vocab("qwen2")),
      make_tokenizer(bpe_vocab("gpt-4o")),      make_tokenizer(bpe_vocab("deepseek-llm")),
      make_tokenizer(bpe_vocab("deepseek-v3")), make_tokenizer(spm_vocab())};
  return *tokenizers[choice % std::size(tokenizers)];
}

void check_streaming(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                     const std::string& text) {
  StreamingDetokenizer detokenizer(tokenizer, true, true);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string part = detokenizer.push(id);
    expect(utf8_valid_prefix(part) == part.size());
    streamed += part;
  }
  streamed += detokenizer.finish();
  if (utf8_valid_prefix(text) == text.size()) expect(streamed == text);
}

void check_chat(uint8_t choice, std::string_view text) {
  const size_t half = text.size() / 2;
  const ChatMessage messages[] = {{"user", std::string(text.substr(half))}};
  const std::string jinja(text.substr(0, half));
  render_chat(static_cast<ChatFormat>(choice % 3), jinja, messages, true);
  try {
    detect_chat_format(jinja);
  } catch (const Error&) {  // most templates are unknown
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Tokenizer& tokenizer = tokenizer_for(data[0]);
  const EncodeOptions options{(data[1] & 1) != 0, (data[1] & 2) != 0};
  const auto ids = tokenizer.encode(text, options);
  const std::string decoded = tokenizer.decode(ids, true);
  if (tokenizer.vocab().kind == TokenizerKind::bpe) expect(decoded == text);
  check_streaming(tokenizer, ids, decoded);
  check_chat(data[1] >> 2, text);
  return 0;
}
