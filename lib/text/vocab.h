// What a tokenizer needs, independent of the file it came from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qllm {

enum class TokenizerKind : uint8_t {
  bpe,  ///< byte-level BPE ("gpt2" in GGUF): merges, pre-tokenizer regex
  spm,  ///< SentencePiece-style ("llama" in GGUF): scores, byte fallback
};

/// tokenizer.ggml.token_type of the GGUF specification.
enum class TokenType : uint8_t {
  undefined = 0,
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

struct Vocab {
  TokenizerKind kind = TokenizerKind::bpe;
  std::string pre = "default";      // tokenizer.ggml.pre
  std::vector<std::string> tokens;  // bpe: in GPT-2's printable byte alphabet; spm: with U+2581
  std::vector<float> scores;        // spm: one per token
  std::vector<TokenType> types;     // empty, or one per token
  std::vector<std::string> merges;  // bpe: "left right", best first
  int32_t bos = -1;                 // -1: none
  int32_t eos = -1;
  int32_t eot = -1;
  int32_t unk = -1;
  int32_t pad = -1;
  bool add_bos = false;  // put bos before, eos behind what is encoded with add_special
  bool add_eos = false;
  bool add_space_prefix = true;  // spm
  std::string chat_template;     // Jinja source, may be empty
};

}  // namespace qllm
