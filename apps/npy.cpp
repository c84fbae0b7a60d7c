#include "npy.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "qllm/error.hpp"

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

bool is_special_file(const std::string& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
}

}  // namespace

NpyWriter::NpyWriter(std::string path, int64_t rows, int64_t columns) : path_(std::move(path)) {
  aside_ = is_special_file(path_) ? path_ : fmt::format("{}.part-{}", path_, ::getpid());
  file_ = std::fopen(aside_.c_str(), "wb");
  if (file_ == nullptr) fail("cannot create");
  const std::string header = npy_header(rows, columns);
  put(header.data(), header.size());
}

NpyWriter::~NpyWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  if (aside_ != path_) ::unlink(aside_.c_str());
}

void NpyWriter::fail(const char* what) const {
  throw Error(ErrorCode::io, fmt::format("{}: {}: {}", path_, what, std::strerror(errno)));
}

void NpyWriter::put(const void* data, size_t size) {
  if (std::fwrite(data, 1, size, file_) != size) fail("cannot write");
}

void NpyWriter::write(std::span<const float> values) { put(values.data(), values.size_bytes()); }

void NpyWriter::finish() {
  if (std::fflush(file_) != 0) fail("cannot write");
  if (aside_ != path_) {
    if (::fsync(::fileno(file_)) != 0) fail("cannot write");
    if (::rename(aside_.c_str(), path_.c_str()) != 0) fail("cannot rename the finished file");
  }
  std::fclose(std::exchange(file_, nullptr));
}

}  // namespace qllm::app
