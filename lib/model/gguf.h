// GGUF model files, versions 2 and 3, little endian: the header, checked field by field, over the
// mapped bytes of the file. Nothing of the file's size is copied; strings and data are views.
// Source: the GGUF specification of the ggml project; docs/formats.md lists the subset and limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quant/ggml_types.h"

namespace qllm {

class MappedFile;

/// Value types as they stand in a file.
enum class GgufValueType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

/// "u32", "string", …; the id in digits for a type that does not exist.
std::string gguf_type_name(GgufValueType type);

/// One metadata value, as a view. `bytes` hold the scalar, the characters of the string, or all
/// elements of the array as they stand in the file (strings with their lengths).
struct GgufValue {
  GgufValueType type = GgufValueType::u8;     // array: see element
  GgufValueType element = GgufValueType::u8;  // element type of an array
  uint64_t count = 0;                         // elements of an array
  std::span<const std::byte> bytes;
};

struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::f32;
  std::vector<int64_t> shape;  // 1 to 4 sizes, row-major, last fastest (the file's order reversed)
  std::span<const std::byte> data;

  int64_t row_length() const { return shape.back(); }
  int64_t rows() const;
  /// Bytes of one row.
  int64_t row_bytes() const;
};

/// A parsed file; immutable, safe for many threads. Lives as long as its views are used.
class GgufFile {
 public:
  /// Maps and parses. Throws not_found, io, bad_format, or unsupported (version 1, big endian,
  /// split files, nested arrays, tensor types that are not read).
  static std::shared_ptr<const GgufFile> open(const std::string& path);
  /// Parses bytes that the caller keeps alive; `origin` begins each message.
  static std::shared_ptr<const GgufFile> parse(std::span<const std::byte> bytes,
                                               std::string origin);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& origin() const { return origin_; }
  uint32_t version() const { return version_; }
  int64_t file_bytes() const { return static_cast<int64_t>(bytes_.size()); }
  std::span<const std::byte> bytes() const { return bytes_; }
  /// All keys and values as they stand in the file.
  std::span<const std::byte> metadata() const { return metadata_; }
  /// Gives back the pages of a mapped file; what is read again comes from the file again.
  void release() const noexcept;
  uint64_t alignment() const { return alignment_; }

  /// In the order of the file.
  const std::vector<std::string_view>& keys() const { return keys_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  const GgufValue* find(std::string_view key) const;
  const GgufTensor* find_tensor(std::string_view name) const;
  /// Throws bad_format naming the tensor where it is missing.
  const GgufTensor& tensor(std::string_view name) const;

  // Typed values. find_*: nothing where the key is missing; get_*: bad_format naming it. Both throw
  // bad_format, naming key, expected and found, where the type or range is wrong. Any integer type
  // serves where an integer is asked for, any float or integer type where a float is.
  std::optional<uint64_t> find_u64(std::string_view key) const;
  std::optional<double> find_f64(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::optional<std::vector<std::string_view>> find_strings(std::string_view key) const;
  std::optional<std::vector<float>> find_f32s(std::string_view key) const;
  std::optional<std::vector<int64_t>> find_i64s(std::string_view key) const;
  uint64_t get_u64(std::string_view key) const;
  double get_f64(std::string_view key) const;
  bool get_bool(std::string_view key) const;
  std::string_view get_string(std::string_view key) const;
  std::vector<std::string_view> get_strings(std::string_view key) const;

 private:
  friend class GgufParser;
  GgufFile() = default;
  [[noreturn]] void fail_type(std::string_view key, std::string_view expected,
                              const GgufValue& found) const;
  [[noreturn]] void fail_missing(std::string_view key) const;

  std::string origin_;
  std::unique_ptr<MappedFile> file_;  // null where the caller owns the bytes
  std::span<const std::byte> bytes_;
  std::span<const std::byte> metadata_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  std::vector<std::string_view> keys_;
  std::unordered_map<std::string_view, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

/// Text from a file made fit for a message: at most 64 bytes, what is not printable ASCII as '?'.
std::string printable(std::string_view text);

}  // namespace qllm
