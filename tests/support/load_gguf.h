// All that the library does with the bytes of a model file before it computes.
#pragma once

#include <cstddef>
#include <span>

namespace qllm::test {

/// Parses, reads configuration and vocabulary, makes the tokenizer, checks and reads some rows of
/// each tensor. Throws qllm::Error where a step refuses; the steps behind a refused configuration
/// or vocabulary are tried all the same.
void load_everything(std::span<const std::byte> bytes);

}  // namespace qllm::test
