// Where the parts of a saved session lie (docs/formats.md), and whose those of the tests are.
#pragma once

#include <cstddef>

#include "engine/session_file.h"
#include "support/kv_model.h"

namespace qllm::test {

inline constexpr SequenceOwner kSavedOwner = {0x1234567890ABCDEFU, 1000};
inline constexpr size_t kSavedTokensAt = 72;  // number of tokens
inline constexpr size_t kSavedCheckAt = 144;  // the header's checksum
inline constexpr size_t kSavedHeaderBytes = 152;

}  // namespace qllm::test
