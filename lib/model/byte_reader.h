// A cursor over hostile bytes: every read is checked against what is left.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace qllm {

static_assert(std::endian::native == std::endian::little, "files are read as little endian");

class ByteReader {
 public:
  /// `origin` begins each message and must outlive the reader.
  ByteReader(std::span<const std::byte> bytes, const std::string& origin)
      : bytes_(bytes), origin_(&origin) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  /// The next `count` bytes as a view; throws bad_format naming `what` where the file ends before.
  std::span<const std::byte> take(uint64_t count, std::string_view what) {
    require(count <= left(), ErrorCode::bad_format,
            "{}: {}: {} bytes at offset {}, but the file ends after {}", *origin_, what, count,
            position_, bytes_.size());
    const auto view = bytes_.subspan(position_, count);
    position_ += count;
    return view;
  }

  template <typename T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  /// A 64-bit length and that many bytes.
  std::string_view read_string(std::string_view what) {
    const auto length = read<uint64_t>(what);
    const auto view = take(length, what);
    return {reinterpret_cast<const char*>(view.data()), view.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string* origin_;
  uint64_t position_ = 0;
};

}  // namespace qllm
