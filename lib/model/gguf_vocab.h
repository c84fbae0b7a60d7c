// The vocabulary from the metadata of a GGUF file.
#pragma once

#include "model/gguf.h"
#include "text/vocab.h"

namespace qllm {

/// Reads the tokenizer.* keys; what is missing gets the default that writers of GGUF files rely on
/// (docs/formats.md). Throws unsupported for a tokenizer other than "gpt2" and "llama", bad_format
/// naming the key where lengths, types or token ids do not fit.
Vocab vocab_from_gguf(const GgufFile& file);

}  // namespace qllm
