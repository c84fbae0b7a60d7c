// Writes a float32 matrix in NumPy's file format, row by row.
// Source: numpy.lib.format, version 1.0 of the format.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

namespace qllm::app {

/// A file that appears under its name only when it is whole: it is written aside and renamed. A
/// path that exists and is no regular file (a pipe, a device) is written directly.
class NpyWriter {
 public:
  /// Shape [rows, columns]. Throws Error (io).
  NpyWriter(std::string path, int64_t rows, int64_t columns);
  /// Takes away what was not finished.
  ~NpyWriter();
  NpyWriter(const NpyWriter&) = delete;
  NpyWriter& operator=(const NpyWriter&) = delete;

  /// The next values in row-major order. Throws Error (io).
  void write(std::span<const float> values);
  /// All values are written: put the file in its place. Throws Error (io).
  void finish();

 private:
  [[noreturn]] void fail(const char* what) const;
  void put(const void* data, size_t size);

  std::string path_;
  std::string aside_;  // equal to path_ where that is written directly
  std::FILE* file_ = nullptr;
};

}  // namespace qllm::app
