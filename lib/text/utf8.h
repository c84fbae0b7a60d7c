// Well-formedness of UTF-8, after table 3-7 of the Unicode Standard.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qllm {

enum class Utf8State { valid, invalid, incomplete };

/// What stands at the beginning of a non-empty text.
struct Utf8Step {
  Utf8State state;
  /// valid: bytes of the code point. invalid: bytes of the maximal subpart that one U+FFFD
  /// replaces. incomplete: all bytes of the text; more of them could make a code point.
  size_t length;
};

Utf8Step utf8_step(std::string_view text) noexcept;

/// Bytes from the beginning that are well-formed.
size_t utf8_valid_prefix(std::string_view text) noexcept;

/// Bytes from the beginning in which no code point starts that is well-formed.
size_t utf8_invalid_prefix(std::string_view text) noexcept;

/// Appends to `out` what is complete at the front of `pending`, U+FFFD for each invalid maximal
/// subpart, and leaves an incomplete sequence in `pending`.
void utf8_drain(std::string& pending, std::string& out);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace qllm
