// Small files, whole.
#pragma once

#include <cstddef>
#include <fstream>
#include <iterator>
#include <span>
#include <string>

namespace qllm::test {

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

inline std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace qllm::test
