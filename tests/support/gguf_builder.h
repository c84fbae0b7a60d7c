// Builds GGUF files in memory, valid ones by default and, where a test asks for it, broken ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf.h"
#include "quant/ggml_types.h"

namespace qllm::test {

class GgufBuilder {
 public:
  // Metadata, in the order of the calls.
  void add_u8(std::string_view key, uint8_t v) { add_scalar(key, GgufValueType::u8, v); }
  void add_i8(std::string_view key, int8_t v) { add_scalar(key, GgufValueType::i8, v); }
  void add_u16(std::string_view key, uint16_t v) { add_scalar(key, GgufValueType::u16, v); }
  void add_i16(std::string_view key, int16_t v) { add_scalar(key, GgufValueType::i16, v); }
  void add_u32(std::string_view key, uint32_t v) { add_scalar(key, GgufValueType::u32, v); }
  void add_i32(std::string_view key, int32_t v) { add_scalar(key, GgufValueType::i32, v); }
  void add_u64(std::string_view key, uint64_t v) { add_scalar(key, GgufValueType::u64, v); }
  void add_i64(std::string_view key, int64_t v) { add_scalar(key, GgufValueType::i64, v); }
  void add_f32(std::string_view key, float v) { add_scalar(key, GgufValueType::f32, v); }
  void add_f64(std::string_view key, double v) { add_scalar(key, GgufValueType::f64, v); }
  void add_bool(std::string_view key, bool v) {
    add_scalar(key, GgufValueType::boolean, static_cast<uint8_t>(v));
  }
  void add_string(std::string_view key, std::string_view text);
  void add_strings(std::string_view key, const std::vector<std::string>& texts);
  void add_i32s(std::string_view key, const std::vector<int32_t>& numbers);
  void add_f32s(std::string_view key, const std::vector<float>& numbers);
  /// A value of any type id with its bytes as they shall stand behind the id.
  void add_raw(std::string_view key, uint32_t type, const std::vector<std::byte>& bytes);
  /// Takes a key off again, if it is there; for tests of missing keys.
  void remove(std::string_view key);

  /// A tensor of row-major shape; `values` are encoded as `type` (any but the K types and Q5_*).
  void add_tensor(std::string_view name, const std::vector<int64_t>& shape, GgmlType type,
                  const std::vector<float>& values);

  /// What the file shall claim of a tensor; `data` follows the header at the next aligned place.
  struct RawTensor {
    std::string name;
    std::vector<uint64_t> dims;  // in file order, first fastest
    uint32_t type = 0;
    std::optional<uint64_t> offset;  // in place of the true one
    std::vector<std::byte> data;
  };
  void add_raw_tensor(RawTensor tensor) { tensors_.push_back(std::move(tensor)); }
  void remove_tensor(std::string_view name);
  /// The tensor of that name, for tests that break it; null where there is none.
  RawTensor* find_tensor(std::string_view name);

  /// Also writes general.alignment, unless it is 32.
  void set_alignment(uint32_t alignment) { alignment_ = alignment; }
  void set_version(uint32_t version) { version_ = version; }
  /// Claimed counts in place of the true ones.
  void set_tensor_count(uint64_t count) { tensor_count_ = count; }
  void set_value_count(uint64_t count) { value_count_ = count; }

  std::vector<std::byte> finish() const;

 private:
  struct Entry {
    std::string key;
    std::vector<std::byte> bytes;  // type id and value
  };
  template <typename T>
  void add_scalar(std::string_view key, GgufValueType type, T value) {
    std::vector<std::byte> bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    add_raw(key, static_cast<uint32_t>(type), bytes);
  }

  std::vector<Entry> values_;
  std::vector<RawTensor> tensors_;
  uint32_t alignment_ = 32;
  uint32_t version_ = 3;
  std::optional<uint64_t> tensor_count_;
  std::optional<uint64_t> value_count_;
};

/// Encodes a row as F32, F16, BF16, Q8_0, Q4_0 or Q4_1, rounding to nearest.
std::vector<std::byte> encode_values(GgmlType type, const std::vector<float>& values);

/// Writes a file; throws std::runtime_error where that fails.
void write_file(const std::string& path, const std::vector<std::byte>& bytes);

}  // namespace qllm::test
