// Counts calls of operator new in a test program.
#pragma once

#include <cstdint>

namespace qllm::test {

/// How often memory was asked for since the program began, by all threads.
int64_t allocations();

}  // namespace qllm::test
