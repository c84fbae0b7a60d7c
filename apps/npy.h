// Writes a float32 matrix in NumPy's file format, row by row.
// Source: numpy.lib.format, version 1.0 of the format.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "whole_file.h"

namespace qllm::app {

class NpyWriter {
 public:
  /// Shape [rows, columns]. Throws Error (io).
  NpyWriter(std::string path, int64_t rows, int64_t columns);
  /// The next values in row-major order. Throws Error (io).
  void write(std::span<const float> values);
  /// All values are written: put the file in its place. Throws Error (io).
  void finish();

 private:
  WholeFile file_;
};

}  // namespace qllm::app
