#include "text/utf8.h"

#include <algorithm>
#include <cstdint>

namespace qllm {
namespace {

// What a lead byte asks for: bytes in all, and the range of the second one, which is where overlong
// forms, surrogates and code points above U+10FFFF are shut out.
struct Lead {
  uint8_t length;  // 0: no lead byte
  uint8_t second_min, second_max;
};

Lead lead_of(uint8_t byte) noexcept {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step utf8_step(std::string_view text) noexcept {
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {Utf8State::invalid, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Utf8State::incomplete, i};
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.second_max : uint8_t{0xBF};
    if (byte < low || byte > high) return {Utf8State::invalid, i};
  }
  return {Utf8State::valid, lead.length};
}

size_t utf8_valid_prefix(std::string_view text) noexcept {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.state != Utf8State::valid) break;
    at += step.length;
  }
  return at;
}

size_t utf8_invalid_prefix(std::string_view text) noexcept {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.state == Utf8State::valid) break;
    at += step.length;
  }
  return at;
}

void utf8_drain(std::string& pending, std::string& out) {
  const std::string_view text = pending;
  size_t at = 0;
  while (at < text.size()) {
    const size_t valid = utf8_valid_prefix(text.substr(at));
    out.append(text.substr(at, valid));
    at += valid;
    if (at == text.size()) break;
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.state == Utf8State::incomplete) break;
    out.append(kReplacementCharacter);
    at += step.length;
  }
  pending.erase(0, at);
}

}  // namespace qllm
