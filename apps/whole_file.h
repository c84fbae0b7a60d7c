// Files that appear under their name only when they are whole.
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>

namespace qllm::app {

/// Written aside and renamed. A path that exists and is no regular file (a pipe, a device) is
/// written directly.
class WholeFile {
 public:
  /// Throws Error (io).
  explicit WholeFile(std::string path);
  /// Takes away what was not finished.
  ~WholeFile();
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;

  /// Throws Error (io).
  void put(const void* data, size_t size);
  /// All is written: put the file in its place. Throws Error (io).
  void finish();

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_;
  std::string aside_;  // equal to path_ where that is written directly
  std::FILE* file_ = nullptr;
};

}  // namespace qllm::app
