// Counts calls that ask for heap memory in a test program.
#pragma once

#include <cstdint>

namespace qllm::test {

/// How often memory was asked for since the program began, by all threads: malloc and its kin,
/// whoever calls them (C libraries too). Counts nothing under a sanitizer (support/sanitized.h).
int64_t allocations();

}  // namespace qllm::test
