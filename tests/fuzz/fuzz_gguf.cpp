// Bytes as a model file: parsing, configuration, tensors' shapes, vocabulary, tokenizer, rows.
// Whatever they hold, the library throws qllm::Error or loads.
#include <cstddef>
#include <cstdint>
#include <span>

#include "qllm/error.hpp"
#include "support/load_gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    qllm::test::load_everything(std::as_bytes(std::span(data, size)));
  } catch (const qllm::Error&) {
  }
  return 0;
}
