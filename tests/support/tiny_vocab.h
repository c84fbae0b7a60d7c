// Small vocabularies that can encode any text: all bytes, some merges or pieces, special tokens.
#pragma once

#include <cstdint>
#include <string>

#include "support/gguf_builder.h"
#include "text/vocab.h"

namespace qllm::test {

/// The fewest tokens such a vocabulary has.
int64_t tiny_vocab_least(TokenizerKind kind);

/// Adds the tokenizer.* keys; unused tokens fill up to `vocab_size`.
void add_tiny_vocab(TokenizerKind kind, const std::string& pre, int64_t vocab_size,
                    GgufBuilder* builder);

}  // namespace qllm::test
