// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace qllm {

/// Maps a regular file for reading; the mapping ends with the object. The file must not be
/// truncated by others while it is mapped: the system answers a read past its new end with SIGBUS.
class MappedFile {
 public:
  /// Throws not_found for a missing file, io for a directory, a device, or one that cannot be
  /// opened or mapped, bad_format for an empty one.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  /// Gives its pages back; what is read again is mapped again.
  void release() const noexcept;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qllm
