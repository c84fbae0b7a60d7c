#include "model/gguf_parse.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/math.h"

namespace qllm {
namespace {

constexpr uint32_t kMagic = 0x46554747;       // "GGUF"
constexpr uint64_t kMaxKeyBytes = 65535;      // the specification's limit
constexpr uint64_t kMaxTensorNameBytes = 64;  // likewise
constexpr uint32_t kMaxDims = 4;              // likewise
constexpr uint64_t kMaxAlignment = 1U << 20;  // ours; 32 is usual
// The least that one entry takes in the file: bounds a count before anything is sized by it.
constexpr uint64_t kLeastValueEntry = 8 + 1 + 4 + 1;
constexpr uint64_t kLeastTensorEntry = 8 + 1 + 4 + 8 + 4 + 8;

/// Bytes of a scalar; 0 for string, array and types that do not exist.
uint64_t scalar_bytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::u8:
    case GgufValueType::i8:
    case GgufValueType::boolean:
      return 1;
    case GgufValueType::u16:
    case GgufValueType::i16:
      return 2;
    case GgufValueType::u32:
    case GgufValueType::i32:
    case GgufValueType::f32:
      return 4;
    case GgufValueType::u64:
    case GgufValueType::i64:
    case GgufValueType::f64:
      return 8;
    case GgufValueType::string:
    case GgufValueType::array:
      return 0;
  }
  return 0;
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
}

}  // namespace

void GgufParser::run() {
  read_magic_and_version();
  const auto tensors = reader_.read<uint64_t>("tensor count");
  const auto values = reader_.read<uint64_t>("metadata count");
  const uint64_t begin = reader_.position();
  read_metadata(values);
  file_->metadata_ = file_->bytes_.subspan(begin, reader_.position() - begin);
  read_alignment();
  refuse_splits();
  read_tensors(tensors);
}

void GgufParser::read_magic_and_version() {
  const std::string& origin = file_->origin_;
  require(!file_->bytes_.empty(), ErrorCode::bad_format, "{}: the file is empty", origin);
  require(reader_.read<uint32_t>("magic") == kMagic, ErrorCode::bad_format,
          "{}: not a GGUF file: it does not begin with \"GGUF\"", origin);
  const auto version = reader_.read<uint32_t>("version");
  // A small number in the other byte order leaves the lower half empty.
  require(version == 0 || (version & 0xFFFFU) != 0, ErrorCode::unsupported,
          "{}: big-endian GGUF file; expected little endian", origin);
  require(version == 2 || version == 3, ErrorCode::unsupported,
          "{}: GGUF version: expected 2 or 3, found {}", origin, version);
  file_->version_ = version;
}

std::string_view GgufParser::read_name(std::string_view what, uint64_t limit) {
  const std::string_view name = reader_.read_string(what);
  require(!name.empty() && name.size() <= limit, ErrorCode::bad_format,
          "{}: {}: expected 1 to {} bytes, found {}", file_->origin_, what, limit, name.size());
  require(is_printable(name), ErrorCode::bad_format, "{}: {}: not printable ASCII: {}",
          file_->origin_, what, printable(name));
  return name;
}

void GgufParser::read_metadata(uint64_t count) {
  require(count <= reader_.left() / kLeastValueEntry, ErrorCode::bad_format,
          "{}: metadata count {} does not fit into the {} bytes that follow", file_->origin_, count,
          reader_.left());
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = read_name("metadata key", kMaxKeyBytes);
    const GgufValue value = read_value(key);
    require(file_->values_.emplace(key, value).second, ErrorCode::bad_format,
            "{}: key {}: appears twice", file_->origin_, printable(key));
    file_->keys_.push_back(key);
  }
}

GgufValue GgufParser::read_value(std::string_view key) {
  const std::string what = "key " + printable(key);
  GgufValue value;
  value.type = static_cast<GgufValueType>(reader_.read<uint32_t>(what));
  if (value.type == GgufValueType::array) return read_array(key);
  if (value.type == GgufValueType::string) {
    const std::string_view text = reader_.read_string(what);
    value.bytes = std::as_bytes(std::span(text.data(), text.size()));
    return value;
  }
  const uint64_t size = scalar_bytes(value.type);
  require(size != 0, ErrorCode::bad_format, "{}: {}: unknown value type {}", file_->origin_, what,
          static_cast<uint32_t>(value.type));
  value.bytes = reader_.take(size, what);
  require(value.type != GgufValueType::boolean || value.bytes[0] <= std::byte{1},
          ErrorCode::bad_format, "{}: {}: expected a bool of 0 or 1, found {}", file_->origin_,
          what, std::to_integer<int>(value.bytes[0]));
  return value;
}

GgufValue GgufParser::read_array(std::string_view key) {
  const std::string what = "key " + printable(key);
  GgufValue value;
  value.type = GgufValueType::array;
  value.element = static_cast<GgufValueType>(reader_.read<uint32_t>(what));
  value.count = reader_.read<uint64_t>(what);
  require(value.element != GgufValueType::array, ErrorCode::unsupported,
          "{}: {}: arrays of arrays are not read", file_->origin_, what);
  if (value.element == GgufValueType::string) {
    const uint64_t begin = reader_.position();
    for (uint64_t i = 0; i < value.count; ++i) reader_.read_string(what);
    value.bytes = file_->bytes_.subspan(begin, reader_.position() - begin);
    return value;
  }
  const uint64_t size = scalar_bytes(value.element);
  require(size != 0, ErrorCode::bad_format, "{}: {}: unknown element type {}", file_->origin_, what,
          static_cast<uint32_t>(value.element));
  uint64_t bytes = 0;
  require(checked_mul(size, value.count, &bytes), ErrorCode::bad_format,
          "{}: {}: an array of {} elements overflows", file_->origin_, what, value.count);
  value.bytes = reader_.take(bytes, what);
  return value;
}

void GgufParser::read_alignment() {
  const auto alignment = file_->find_u64("general.alignment");
  if (!alignment) return;
  require(*alignment >= 1 && *alignment <= kMaxAlignment && std::has_single_bit(*alignment),
          ErrorCode::bad_format,
          "{}: key general.alignment: expected a power of two up to {}, found {}", file_->origin_,
          kMaxAlignment, *alignment);
  file_->alignment_ = *alignment;
}

void GgufParser::refuse_splits() const {
  const uint64_t parts = file_->find_u64("split.count").value_or(1);
  require(
      parts <= 1, ErrorCode::unsupported,
      "{}: one of {} parts of a split model; join them into one file first (gguf-split --merge)",
      file_->origin_, parts);
}

std::vector<int64_t> GgufParser::read_shape(std::string_view tensor) {
  const std::string what = "tensor " + std::string(tensor);
  const auto dims = reader_.read<uint32_t>(what);
  require(dims >= 1 && dims <= kMaxDims, ErrorCode::bad_format,
          "{}: {}: expected 1 to {} dimensions, found {}", file_->origin_, what, kMaxDims, dims);
  std::vector<int64_t> shape(dims);
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dims; ++i) {
    const auto size = reader_.read<uint64_t>(what);
    require(size != 0, ErrorCode::bad_format, "{}: {}: dimension {} is zero", file_->origin_, what,
            i);
    require(checked_mul(elements, size, &elements) &&
                elements <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 8,
            ErrorCode::bad_format, "{}: {}: the product of its dimensions overflows",
            file_->origin_, what);
    shape[dims - 1 - i] = static_cast<int64_t>(size);
  }
  return shape;
}

uint64_t GgufParser::tensor_bytes(const GgufTensor& tensor) const {
  const GgmlTypeInfo& info = ggml_type_info(tensor.type);
  require(tensor.row_length() % info.block_elements == 0, ErrorCode::bad_format,
          "{}: tensor {}: rows of {} values are no multiple of the {} values of a {} block",
          file_->origin_, tensor.name, tensor.row_length(), info.block_elements, info.name);
  // read_shape bounds the number of elements by 2^60, and no block takes more than 4 bytes a value.
  return static_cast<uint64_t>(tensor.rows()) * static_cast<uint64_t>(tensor.row_bytes());
}

GgufTensor GgufParser::read_tensor(Extent* extent) {
  GgufTensor tensor;
  tensor.name = read_name("tensor name", kMaxTensorNameBytes);
  tensor.shape = read_shape(tensor.name);
  const std::string what = "tensor " + std::string(tensor.name);
  const auto type = reader_.read<uint32_t>(what);
  require(find_ggml_type(type) != nullptr, ErrorCode::unsupported,
          "{}: tensor {}: type {} is not supported", file_->origin_, tensor.name,
          describe_ggml_type(type));
  tensor.type = static_cast<GgmlType>(type);
  extent->offset = reader_.read<uint64_t>(what);
  require(extent->offset % file_->alignment_ == 0, ErrorCode::bad_format,
          "{}: tensor {}: offset {} is no multiple of the alignment {}", file_->origin_,
          tensor.name, extent->offset, file_->alignment_);
  extent->bytes = tensor_bytes(tensor);
  return tensor;
}

void GgufParser::read_tensors(uint64_t count) {
  require(count <= reader_.left() / kLeastTensorEntry, ErrorCode::bad_format,
          "{}: tensor count {} does not fit into the {} bytes that follow", file_->origin_, count,
          reader_.left());
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < count; ++i) {
    Extent extent{};
    GgufTensor tensor = read_tensor(&extent);
    require(file_->tensor_index_.emplace(tensor.name, file_->tensors_.size()).second,
            ErrorCode::bad_format, "{}: tensor {}: appears twice", file_->origin_, tensor.name);
    file_->tensors_.push_back(std::move(tensor));
    extents.push_back(extent);
  }
  place_tensors(extents);
  refuse_overlaps(extents);
}

void GgufParser::place_tensors(const std::vector<Extent>& extents) {
  const uint64_t header = reader_.position();
  const uint64_t padding = (file_->alignment_ - header % file_->alignment_) % file_->alignment_;
  const uint64_t available = reader_.left() > padding ? reader_.left() - padding : 0;
  for (size_t i = 0; i < extents.size(); ++i) {
    const Extent& e = extents[i];
    require(e.offset <= available && e.bytes <= available - e.offset, ErrorCode::bad_format,
            "{}: tensor {}: {} bytes at offset {} of the data, but the file holds {} bytes of data",
            file_->origin_, file_->tensors_[i].name, e.bytes, e.offset, available);
    file_->tensors_[i].data = file_->bytes_.subspan(header + padding + e.offset, e.bytes);
  }
}

// Tensors that share bytes would let a small file claim a model of any size.
void GgufParser::refuse_overlaps(const std::vector<Extent>& extents) const {
  std::vector<size_t> order(extents.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return extents[a].offset < extents[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const Extent& before = extents[order[i - 1]];
    require(extents[order[i]].offset >= before.offset + before.bytes, ErrorCode::bad_format,
            "{}: tensor {}: its data overlaps that of tensor {}", file_->origin_,
            file_->tensors_[order[i]].name, file_->tensors_[order[i - 1]].name);
  }
}

}  // namespace qllm
