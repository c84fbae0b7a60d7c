#include "support/gguf_builder.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

#include "quant/float_bits.h"

namespace qllm::test {
namespace {

using Bytes = std::vector<std::byte>;

void put_bytes(Bytes* out, const void* data, size_t size) {
  if (size == 0) return;
  const size_t at = out->size();
  out->resize(at + size);
  std::memcpy(out->data() + at, data, size);
}

template <typename T>
void put(Bytes* out, T value) {
  put_bytes(out, &value, sizeof value);
}

void put_string(Bytes* out, std::string_view text) {
  put(out, static_cast<uint64_t>(text.size()));
  put_bytes(out, text.data(), text.size());
}

void pad(Bytes* out, size_t alignment) {
  while (out->size() % alignment != 0) out->push_back(std::byte{0});
}

Bytes array_head(GgufValueType element, size_t count) {
  Bytes bytes;
  put(&bytes, static_cast<uint32_t>(element));
  put(&bytes, static_cast<uint64_t>(count));
  return bytes;
}

void encode_q8_0(const float* x, Bytes* out) {
  float amax = 0.0F;
  for (int i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(x[i]));
  const float d = amax / 127.0F;
  put(out, float_to_half(d));
  for (int i = 0; i < 32; ++i) {
    put(out, static_cast<int8_t>(d > 0.0F ? std::lround(x[i] / d) : 0));
  }
}

void put_nibbles(const float* x, float d, float zero, Bytes* out) {
  const auto level = [&](float v) {
    return static_cast<int>(std::clamp(d != 0.0F ? std::round((v - zero) / d) : 0.0F, 0.0F, 15.0F));
  };
  for (int i = 0; i < 16; ++i)
    put(out, static_cast<uint8_t>(level(x[i]) | (level(x[i + 16]) << 4)));
}

void encode_q4_0(const float* x, Bytes* out) {
  float amax = 0.0F;
  for (int i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(x[i]));
  const float d = amax / 7.0F;
  put(out, float_to_half(d));
  put_nibbles(x, d, -8.0F * d, out);
}

void encode_q4_1(const float* x, Bytes* out) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float d = (*high - *low) / 15.0F;
  put(out, float_to_half(d));
  put(out, float_to_half(*low));
  put_nibbles(x, d, *low, out);
}

void encode_block(GgmlType type, const float* x, Bytes* out) {
  switch (type) {
    case GgmlType::f32:
      return put(out, *x);
    case GgmlType::f16:
      return put(out, float_to_half(*x));
    case GgmlType::bf16:
      return put(out, float_to_bfloat(*x));
    case GgmlType::q8_0:
      return encode_q8_0(x, out);
    case GgmlType::q4_0:
      return encode_q4_0(x, out);
    case GgmlType::q4_1:
      return encode_q4_1(x, out);
    default:
      throw std::runtime_error("encode_values: this type has no encoder here");
  }
}

}  // namespace

std::vector<std::byte> encode_values(GgmlType type, const std::vector<float>& values) {
  const auto step = static_cast<size_t>(ggml_type_info(type).block_elements);
  if (values.size() % step != 0) throw std::runtime_error("encode_values: not whole blocks");
  Bytes out;
  for (size_t i = 0; i < values.size(); i += step) encode_block(type, values.data() + i, &out);
  return out;
}

void write_file(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
}

void GgufBuilder::add_raw(std::string_view key, uint32_t type,
                          const std::vector<std::byte>& bytes) {
  Entry entry{std::string(key), {}};
  put(&entry.bytes, type);
  entry.bytes.insert(entry.bytes.end(), bytes.begin(), bytes.end());
  values_.push_back(std::move(entry));
}

void GgufBuilder::add_string(std::string_view key, std::string_view text) {
  Bytes bytes;
  put_string(&bytes, text);
  add_raw(key, static_cast<uint32_t>(GgufValueType::string), bytes);
}

void GgufBuilder::add_strings(std::string_view key, const std::vector<std::string>& texts) {
  Bytes bytes = array_head(GgufValueType::string, texts.size());
  for (const std::string& text : texts) put_string(&bytes, text);
  add_raw(key, static_cast<uint32_t>(GgufValueType::array), bytes);
}

void GgufBuilder::add_i32s(std::string_view key, const std::vector<int32_t>& numbers) {
  Bytes bytes = array_head(GgufValueType::i32, numbers.size());
  put_bytes(&bytes, numbers.data(), numbers.size() * sizeof(int32_t));
  add_raw(key, static_cast<uint32_t>(GgufValueType::array), bytes);
}

void GgufBuilder::add_f32s(std::string_view key, const std::vector<float>& numbers) {
  Bytes bytes = array_head(GgufValueType::f32, numbers.size());
  put_bytes(&bytes, numbers.data(), numbers.size() * sizeof(float));
  add_raw(key, static_cast<uint32_t>(GgufValueType::array), bytes);
}

void GgufBuilder::remove(std::string_view key) {
  std::erase_if(values_, [&](const Entry& entry) { return entry.key == key; });
}

void GgufBuilder::add_tensor(std::string_view name, const std::vector<int64_t>& shape,
                             GgmlType type, const std::vector<float>& values) {
  RawTensor tensor;
  tensor.name = name;
  tensor.dims.assign(shape.rbegin(), shape.rend());
  tensor.type = static_cast<uint32_t>(type);
  tensor.data = encode_values(type, values);
  add_raw_tensor(std::move(tensor));
}

void GgufBuilder::remove_tensor(std::string_view name) {
  std::erase_if(tensors_, [&](const RawTensor& tensor) { return tensor.name == name; });
}

GgufBuilder::RawTensor* GgufBuilder::find_tensor(std::string_view name) {
  for (RawTensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

std::vector<std::byte> GgufBuilder::finish() const {
  GgufBuilder with_alignment = *this;
  if (alignment_ != 32) with_alignment.add_u32("general.alignment", alignment_);
  Bytes out;
  put_bytes(&out, "GGUF", 4);
  put(&out, version_);
  put(&out, tensor_count_.value_or(tensors_.size()));
  put(&out, value_count_.value_or(with_alignment.values_.size()));
  for (const Entry& entry : with_alignment.values_) {
    put_string(&out, entry.key);
    put_bytes(&out, entry.bytes.data(), entry.bytes.size());
  }
  Bytes data;
  for (const RawTensor& tensor : tensors_) {
    pad(&data, std::max<size_t>(alignment_, 1));
    put_string(&out, tensor.name);
    put(&out, static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) put(&out, dim);
    put(&out, tensor.type);
    put(&out, tensor.offset.value_or(data.size()));
    put_bytes(&data, tensor.data.data(), tensor.data.size());
  }
  pad(&out, std::max<size_t>(alignment_, 1));
  put_bytes(&out, data.data(), data.size());
  return out;
}

}  // namespace qllm::test
