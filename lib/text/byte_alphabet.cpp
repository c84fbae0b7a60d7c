#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace qllm {
namespace {

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr unsigned kCodePoints = 256 + 68;  // the highest is U+0143

constexpr std::array<uint16_t, 256> make_code_points() {
  std::array<uint16_t, 256> table{};
  uint16_t next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    table[byte] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
  }
  return table;
}

constexpr std::array<uint16_t, 256> kCodePointOfByte = make_code_points();

constexpr std::array<int16_t, kCodePoints> make_bytes() {
  std::array<int16_t, kCodePoints> table{};
  for (auto& entry : table) entry = -1;
  for (unsigned byte = 0; byte < 256; ++byte) {
    table[kCodePointOfByte[byte]] = static_cast<int16_t>(byte);
  }
  return table;
}

constexpr std::array<int16_t, kCodePoints> kByteOfCodePoint = make_bytes();

/// A printable byte of ASCII, which stands for itself: most there are.
constexpr bool is_plain(char c) { return c >= 0x21 && c <= 0x7E; }

// The byte that a one- or two-byte sequence of UTF-8 stands for, or -1.
int byte_of(std::string_view sequence) {
  unsigned code_point = static_cast<uint8_t>(sequence[0]);
  if (sequence.size() > 2) return -1;
  if (sequence.size() == 2) {
    code_point = (code_point & 0x1F) << 6 | (static_cast<uint8_t>(sequence[1]) & 0x3F);
  }
  return code_point < kCodePoints ? kByteOfCodePoint[code_point] : -1;
}

}  // namespace

std::string bytes_from_alphabet(std::string_view printable) {
  std::string bytes;
  bytes.reserve(printable.size());
  for (size_t at = 0; at < printable.size();) {
    if (is_plain(printable[at])) {
      bytes.push_back(printable[at++]);
      continue;
    }
    const Utf8Step step = utf8_step(printable.substr(at));
    const std::string_view sequence = printable.substr(at, step.length);
    const int byte = step.state == Utf8State::valid ? byte_of(sequence) : -1;
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
    } else {
      bytes.append(sequence);
    }
    at += step.length;
  }
  return bytes;
}

bool is_in_alphabet(std::string_view printable) {
  for (size_t at = 0; at < printable.size();) {
    if (is_plain(printable[at])) {
      ++at;
      continue;
    }
    const Utf8Step step = utf8_step(printable.substr(at));
    if (step.state != Utf8State::valid || byte_of(printable.substr(at, step.length)) < 0)
      return false;
    at += step.length;
  }
  return true;
}

std::string alphabet_from_bytes(std::string_view bytes) {
  std::string printable;
  printable.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const unsigned code_point = kCodePointOfByte[static_cast<uint8_t>(c)];
    if (code_point < 0x80) {
      printable.push_back(static_cast<char>(code_point));
    } else {
      printable.push_back(static_cast<char>(0xC0 | code_point >> 6));
      printable.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
    }
  }
  return printable;
}

}  // namespace qllm
