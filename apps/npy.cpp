#include "npy.h"

#include <fmt/format.h>

#include <bit>
#include <utility>

namespace qllm::app {
namespace {

static_assert(std::endian::native == std::endian::little, "the header says '<f4'");

// Magic, version, length of the dictionary, the dictionary: padded to a multiple of 64 bytes and
// ended by a newline.
std::string npy_header(int64_t rows, int64_t columns) {
  constexpr size_t kPrefix = 10;
  constexpr size_t kAlignment = 64;
  std::string dictionary =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  const size_t unpadded = kPrefix + dictionary.size() + 1;
  dictionary.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');
  dictionary += '\n';
  const auto length = static_cast<uint16_t>(dictionary.size());
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(length & 0xFFU);
  header += static_cast<char>(length >> 8U);
  return header + dictionary;
}

}  // namespace

NpyWriter::NpyWriter(std::string path, int64_t rows, int64_t columns) : file_(std::move(path)) {
  const std::string header = npy_header(rows, columns);
  file_.put(header.data(), header.size());
}

void NpyWriter::write(std::span<const float> values) {
  file_.put(values.data(), values.size_bytes());
}

void NpyWriter::finish() { file_.finish(); }

}  // namespace qllm::app
