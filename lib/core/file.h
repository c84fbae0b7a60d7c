// Files that are read or written front to back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace qllm {

/// A regular file, read in order.
class InputFile {
 public:
  /// Throws not_found for a missing file, io for what is no regular file or cannot be opened.
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// When it was opened.
  int64_t size() const { return size_; }
  /// The next bytes. Throws io, bad_format where the file ends within them.
  void read(std::span<std::byte> out);

 private:
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

/// A file that appears whole or not at all: written beside its place, then renamed. Readable by the
/// user alone.
class NewFile {
 public:
  /// Throws io.
  explicit NewFile(const std::string& path);
  /// Removes what was written unless it was committed.
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  /// Throws io, naming a full disk.
  void write(std::span<const std::byte> bytes);
  /// Brings all to the disk and takes the place of what stood there. Throws io.
  void commit();

 private:
  [[noreturn]] void fail_io(const char* what) const;

  std::string path_;
  std::string temporary_;  // empty: committed
  int fd_ = -1;
};

/// Brings the folder that `path` lies in to the disk: a rename is there once its folder is. A file
/// system that cannot say so is no error.
void sync_folder(const std::string& path);

}  // namespace qllm
