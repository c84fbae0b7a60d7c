// A complete LLaMA model of random weights, small enough for a test: metadata, vocabulary, tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "quant/ggml_types.h"
#include "support/gguf_builder.h"
#include "text/vocab.h"

namespace qllm::test {

struct TinyLlamaOptions {
  int64_t d_model = 64;
  int64_t d_ff = 96;
  int64_t n_layers = 2;
  int64_t n_heads = 4;
  int64_t n_kv_heads = 2;
  int64_t head_dim = 16;
  int64_t vocab_size = 300;  // at least 300 (bpe) or 340 (spm); raised to that
  int64_t context_length = 256;
  bool tied_lm_head = true;
  bool attention_bias = false;
  bool rope_freqs = false;        // adds rope_freqs.weight
  GgmlType type = GgmlType::f32;  // of the matrices; vectors are F32
  TokenizerKind tokenizer = TokenizerKind::bpe;
  std::string pre = "gpt-2";  // tokenizer.ggml.pre
  uint64_t seed = 1;
};

/// Ids of the special tokens of the bpe vocabulary (spm: 0 is <unk>, 1 <s>, 2 </s>).
inline constexpr int32_t kTinyEndOfText = 0;  // "<|endoftext|>"
inline constexpr int32_t kTinyImStart = 1;    // "<|im_start|>", bos
inline constexpr int32_t kTinyImEnd = 2;      // "<|im_end|>", eos

/// The model as a builder, so that a test can still change or break it.
GgufBuilder tiny_llama_builder(const TinyLlamaOptions& options = {});

/// The model as the bytes of a file.
std::vector<std::byte> build_tiny_llama_gguf(const TinyLlamaOptions& options = {});

/// Writes the model to `path`.
void write_tiny_llama_gguf(const std::string& path, const TinyLlamaOptions& options = {});

}  // namespace qllm::test
