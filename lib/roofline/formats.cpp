#include "roofline/formats.h"

#include <algorithm>

#include "quant/packing.h"

namespace qllm::roofline {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kHalfBytes = 2;
constexpr int64_t kScaleAndSumBytes = 8;  // of a row: float32 scale, int32 sum
constexpr int64_t kKvLanes = 16;          // a line of keys or values holds as many
constexpr GroupFormat kInt8Groups{8, 32, GroupScales::f16};

struct KnownGrid {
  std::string_view type;
  GroupFormat format;
};

// The grids that `keep` takes over from a file (docs/formats.md).
constexpr KnownGrid kGrids[] = {
    {"Q4_0", {4, 32, GroupScales::f16}},
    {"Q4_1", {4, 32, GroupScales::f16_min}},
    {"Q8_0", kInt8Groups},
    {"Q4_K", {4, 32, GroupScales::k_quant}},
};

}  // namespace

Formats::Formats(const Shape& shape, const std::string& scheme)
    : shape_(shape), scheme_name_(scheme) {
  if (scheme == "fp16") {
    is_float_ = is_half_ = true;
    return;
  }
  scheme_ = parse_scheme(scheme);
  is_float_ = scheme_.kind == SchemeKind::fp32;
  require(scheme_.kind != SchemeKind::keep || !shape.tensors.empty(), ErrorCode::unsupported,
          "scheme keep: {} is no model file; keep takes over what a file holds", shape.name);
}

LinearFormat Formats::linear(std::string_view tensor) const {
  using Kind = LinearFormat::Kind;
  if (is_float_) return {is_half_ ? Kind::f16 : Kind::f32, {}};
  switch (scheme_.kind) {
    case SchemeKind::int4:
      if (tensor == "output") return {Kind::row_int8, {}};  // the LM head stays at 8 bits
      return {Kind::groups,
              {4, scheme_.group, scheme_.has_min ? GroupScales::f16_min : GroupScales::f16}};
    case SchemeKind::keep:
      return from_file(tensor);
    default:
      return {Kind::row_int8, {}};
  }
}

LinearFormat Formats::from_file(std::string_view tensor) const {
  const auto find = [&](const std::string& name) {
    return std::find_if(shape_.tensors.begin(), shape_.tensors.end(),
                        [&](const TensorInfo& t) { return t.name == name; });
  };
  const bool is_head = tensor == "output";
  auto found = find(is_head ? "output.weight" : fmt::format("blk.0.{}.weight", tensor));
  if (is_head && found == shape_.tensors.end()) found = find("token_embd.weight");
  if (found != shape_.tensors.end()) {
    for (const KnownGrid& grid : kGrids) {
      if (grid.type == found->type) return {LinearFormat::Kind::groups, grid.format};
    }
  }
  return {LinearFormat::Kind::groups, kInt8Groups};
}

std::string Formats::name(std::string_view tensor) const {
  return linear(tensor).kind == LinearFormat::Kind::row_int8 ? "int8" : scheme_name_;
}

Arithmetic Formats::arithmetic() const {
  if (!is_float_) return Arithmetic::int8;
  return is_half_ ? Arithmetic::fp16 : Arithmetic::fp32;
}

Count Formats::activation(int64_t k, std::string_view tensor) const {
  const LinearFormat format = linear(tensor);
  switch (format.kind) {
    case LinearFormat::Kind::f32:
      return Count(k) * kFloatBytes;
    case LinearFormat::Kind::f16:
      return Count(k) * kHalfBytes;
    case LinearFormat::Kind::row_int8:
      return Count(round_up(k, kBlockK)) + kFloatBytes;
    case LinearFormat::Kind::groups:
      break;
  }
  const int64_t padded = format.groups.padded_k(k);
  return Count(padded) + Count(padded / format.groups.group) * kFloatBytes;
}

Count linear_bytes(const LinearFormat& format, int64_t rows, int64_t k) {
  switch (format.kind) {
    case LinearFormat::Kind::f32:
      return Count(rows) * k * kFloatBytes;
    case LinearFormat::Kind::f16:
      return Count(rows) * k * kHalfBytes;
    case LinearFormat::Kind::row_int8:
      return Count(rows) * (Count(round_up(k, kBlockK)) + kScaleAndSumBytes);
    case LinearFormat::Kind::groups:
      break;
  }
  // A record holds 64 rows, evenly: its bytes are a multiple of 64.
  return Count(rows) * (format.groups.column_bytes(format.groups.padded_k(k)) / kBlockN);
}

int64_t padded_rows(const LinearFormat& format, int64_t rows) {
  const bool is_packed =
      format.kind == LinearFormat::Kind::row_int8 || format.kind == LinearFormat::Kind::groups;
  return is_packed ? round_up(rows, kBlockN) : rows;
}

Count kv_vector_bytes(std::string_view kv, int64_t head_dim) {
  const int64_t elements = round_up(head_dim, kKvLanes);
  if (kv == "bf16") return Count(elements) * kHalfBytes;
  require(kv == "int8", ErrorCode::invalid_argument, "kv {}: expected bf16 or int8", kv);
  return Count(elements) + kFloatBytes;
}

}  // namespace qllm::roofline
