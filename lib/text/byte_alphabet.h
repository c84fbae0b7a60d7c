// The printable alphabet in which byte-level BPE vocabularies write bytes: the bytes that print in
// Latin-1 stand for themselves, the other 68 for U+0100, U+0101, … in order of their value.
#pragma once

#include <string>
#include <string_view>

namespace qllm {

/// The bytes that `printable` (UTF-8) stands for. Code points outside the alphabet are kept as
/// their own UTF-8 bytes, ill-formed bytes as they are.
std::string bytes_from_alphabet(std::string_view printable);

/// True where every code point is one of the alphabet's 256.
bool is_in_alphabet(std::string_view printable);

/// The inverse: 256 code points for 256 bytes, each of one or two bytes of UTF-8.
std::string alphabet_from_bytes(std::string_view bytes);

}  // namespace qllm
