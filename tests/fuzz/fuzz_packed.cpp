// Bytes as a packed model. The first byte chooses which checksums are made right, as whoever forges
// a file would; the rest is the file. Whatever it holds, the library throws qllm::Error or loads.
#include <cstddef>
#include <cstdint>
#include <span>

#include "qllm/error.hpp"
#include "support/packed_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  qllm::test::AlignedBytes file(std::as_bytes(std::span(data, size)).subspan(1));
  qllm::test::repair_packed(file.data(), file.span().size(), data[0]);
  try {
    qllm::test::load_packed(file.span());
  } catch (const qllm::Error&) {
  }
  return 0;
}
