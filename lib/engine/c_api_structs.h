// How the C API reads and writes structs that carry their own size.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>

#include "qllm/error.hpp"

namespace qllm::c {

/// Throws invalid_argument unless `size` is that of some version of T. Every version ends on T's
/// alignment and new fields never go into padding, so that no field is ever cut in two.
template <typename T>
void check_struct_size(std::size_t size, const char* name) {
  static_assert(std::is_trivially_copyable_v<T> && offsetof(T, struct_size) == 0);
  if (size > sizeof(std::size_t) && size % alignof(T) == 0) return;
  throw Error(ErrorCode::invalid_argument, std::string(name) + ".struct_size: expected sizeof(" +
                                               name + ") = " + std::to_string(sizeof(T)) +
                                               ", found " + std::to_string(size));
}

/// `defaults` overlaid with what the caller's struct has of T; `given` may be null.
template <typename T>
T read_struct(const T* given, T defaults, const char* name) {
  if (given == nullptr) return defaults;
  check_struct_size<T>(given->struct_size, name);
  std::memcpy(&defaults, given, std::min(given->struct_size, sizeof(T)));
  return defaults;
}

/// Copies `value` as far as the caller's struct of `size` bytes has it; a tail that this library
/// does not know becomes zero.
template <typename T>
void write_struct(T* out, T value, std::size_t size) {
  value.struct_size = size;
  std::memcpy(static_cast<void*>(out), &value, std::min(size, sizeof(T)));
  if (size > sizeof(T)) std::memset(reinterpret_cast<char*>(out) + sizeof(T), 0, size - sizeof(T));
}

}  // namespace qllm::c
