#include "model/gguf.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/mapped_file.h"
#include "model/gguf_parse.h"

namespace qllm {
namespace {

template <typename T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// A scalar integer; nothing where the type is none or the value does not fit into int64.
std::optional<int64_t> as_integer(GgufValueType type, const std::byte* p) {
  switch (type) {
    case GgufValueType::u8:
      return load<uint8_t>(p);
    case GgufValueType::i8:
      return load<int8_t>(p);
    case GgufValueType::u16:
      return load<uint16_t>(p);
    case GgufValueType::i16:
      return load<int16_t>(p);
    case GgufValueType::u32:
      return load<uint32_t>(p);
    case GgufValueType::i32:
      return load<int32_t>(p);
    case GgufValueType::i64:
      return load<int64_t>(p);
    case GgufValueType::u64: {
      const auto value = load<uint64_t>(p);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::string show_value(const GgufValue& value) {
  if (value.type == GgufValueType::array) {
    return fmt::format("an array of {} {}", value.count, gguf_type_name(value.element));
  }
  if (value.type == GgufValueType::u64)
    return fmt::format("u64 {}", load<uint64_t>(value.bytes.data()));
  if (const auto number = as_integer(value.type, value.bytes.data())) {
    return fmt::format("{} {}", gguf_type_name(value.type), *number);
  }
  return gguf_type_name(value.type);
}

uint64_t element_bytes(const GgufValue& array) {
  return array.count == 0 ? 0 : array.bytes.size() / array.count;
}

/// True for "…-00001-of-00003.gguf" with more than one part.
bool names_a_part(const std::string& path) {
  const std::string_view extension = ".gguf";
  const std::string_view pattern = "-ddddd-of-ddddd";
  if (path.size() < extension.size() + pattern.size() || !path.ends_with(extension)) return false;
  const std::string tail =
      path.substr(path.size() - extension.size() - pattern.size(), pattern.size());
  for (size_t i = 0; i < pattern.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (pattern[i] == 'd' ? !digit : tail[i] != pattern[i]) return false;
  }
  return tail.substr(pattern.size() - 5) > "00001";
}

}  // namespace

std::string gguf_type_name(GgufValueType type) {
  constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
  const auto id = static_cast<uint32_t>(type);
  return id < std::size(kNames) ? std::string(kNames[id]) : std::to_string(id);
}

std::string printable(std::string_view text) {
  constexpr size_t kLimit = 64;
  std::string out(text.substr(0, kLimit));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7E) c = '?';
  }
  return text.size() > kLimit ? out + "..." : out;
}

int64_t GgufTensor::rows() const {
  int64_t product = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) product *= shape[i];
  return product;
}

int64_t GgufTensor::row_bytes() const {
  const GgmlTypeInfo& info = ggml_type_info(type);
  return row_length() / info.block_elements * info.block_bytes;
}

GgufFile::~GgufFile() = default;

std::shared_ptr<const GgufFile> GgufFile::open(const std::string& path) {
  auto mapped = std::make_unique<MappedFile>(path);
  require(!names_a_part(path), ErrorCode::unsupported,
          "{}: one part of a split model; join the parts into one file first (gguf-split --merge)",
          path);
  std::shared_ptr<GgufFile> file(new GgufFile);
  file->origin_ = path;
  file->bytes_ = mapped->bytes();
  file->file_ = std::move(mapped);
  GgufParser(file.get()).run();
  return file;
}

std::shared_ptr<const GgufFile> GgufFile::parse(std::span<const std::byte> bytes,
                                                std::string origin) {
  std::shared_ptr<GgufFile> file(new GgufFile);
  file->origin_ = std::move(origin);
  file->bytes_ = bytes;
  GgufParser(file.get()).run();
  return file;
}

void GgufFile::release() const noexcept {
  if (file_ != nullptr) file_->release();
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

const GgufTensor& GgufFile::tensor(std::string_view name) const {
  const GgufTensor* found = find_tensor(name);
  require(found != nullptr, ErrorCode::bad_format, "{}: tensor {}: missing", origin_,
          printable(name));
  return *found;
}

void GgufFile::fail_type(std::string_view key, std::string_view expected,
                         const GgufValue& found) const {
  fail(ErrorCode::bad_format, "{}: key {}: expected {}, found {}", origin_, printable(key),
       expected, show_value(found));
}

void GgufFile::fail_missing(std::string_view key) const {
  fail(ErrorCode::bad_format, "{}: key {}: missing", origin_, printable(key));
}

std::optional<uint64_t> GgufFile::find_u64(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == GgufValueType::u64) return load<uint64_t>(value->bytes.data());
  const auto number = as_integer(value->type, value->bytes.data());
  if (!number || *number < 0) fail_type(key, "an integer of at least 0", *value);
  return static_cast<uint64_t>(*number);
}

std::optional<double> GgufFile::find_f64(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == GgufValueType::f32) return load<float>(value->bytes.data());
  if (value->type == GgufValueType::f64) return load<double>(value->bytes.data());
  const auto number = as_integer(value->type, value->bytes.data());
  if (!number) fail_type(key, "a number", *value);
  return static_cast<double>(*number);
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufValueType::boolean) fail_type(key, "a bool", *value);
  return value->bytes[0] != std::byte{0};
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufValueType::string) fail_type(key, "a string", *value);
  return std::string_view(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

std::optional<std::vector<std::string_view>> GgufFile::find_strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufValueType::array || value->element != GgufValueType::string) {
    fail_type(key, "an array of strings", *value);
  }
  ByteReader reader(value->bytes, origin_);  // the parser has proven count and lengths
  std::vector<std::string_view> strings(value->count);
  for (std::string_view& text : strings) text = reader.read_string(key);
  return strings;
}

std::optional<std::vector<float>> GgufFile::find_f32s(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufValueType::array || value->element != GgufValueType::f32) {
    fail_type(key, "an array of f32", *value);
  }
  std::vector<float> numbers(value->count);
  if (!numbers.empty()) std::memcpy(numbers.data(), value->bytes.data(), value->bytes.size());
  return numbers;
}

std::optional<std::vector<int64_t>> GgufFile::find_i64s(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufValueType::array) fail_type(key, "an array of integers", *value);
  std::vector<int64_t> numbers(value->element == GgufValueType::string ? 0 : value->count);
  const uint64_t step = element_bytes(*value);
  for (size_t i = 0; i < value->count; ++i) {
    const auto number = as_integer(value->element, value->bytes.data() + i * step);
    if (!number) fail_type(key, "an array of integers", *value);
    numbers[i] = *number;
  }
  return numbers;
}

uint64_t GgufFile::get_u64(std::string_view key) const {
  const auto value = find_u64(key);
  if (!value) fail_missing(key);
  return *value;
}

double GgufFile::get_f64(std::string_view key) const {
  const auto value = find_f64(key);
  if (!value) fail_missing(key);
  return *value;
}

bool GgufFile::get_bool(std::string_view key) const {
  const auto value = find_bool(key);
  if (!value) fail_missing(key);
  return *value;
}

std::string_view GgufFile::get_string(std::string_view key) const {
  const auto value = find_string(key);
  if (!value) fail_missing(key);
  return *value;
}

std::vector<std::string_view> GgufFile::get_strings(std::string_view key) const {
  auto value = find_strings(key);
  if (!value) fail_missing(key);
  return *std::move(value);
}

}  // namespace qllm
