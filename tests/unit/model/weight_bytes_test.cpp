#include "model/weight_bytes.h"

#include <doctest/doctest.h>

#include "model/gguf_config.h"
#include "model/gguf_source.h"
#include "model/llama.h"
#include "support/tiny_llama.h"

namespace qllm {
namespace {

/// vocab 300 -> 320 in blocks of 64, d_ff 96 -> 128, no padding elsewhere; qkv has 128 outputs.
WeightBytes bytes_of(GgmlType type, const Scheme& scheme) {
  test::TinyLlamaOptions options;
  options.type = type;
  const auto bytes = test::build_tiny_llama_gguf(options);
  const auto file = GgufFile::parse(bytes, "mem");
  return weight_bytes(build_llama(config_from_gguf(*file)), scheme, GgufTensorSource(file));
}

constexpr int64_t kNorms = 5 * 64 * 4;
// Weights with padding: qkv, attention output and gate/up by 64 inputs, down by 96 -> 128.
constexpr int64_t kLayer = 128 * 64 + 64 * 64 + 256 * 64 + 64 * 128;
constexpr int64_t kLayerOutputs = 128 + 64 + 256 + 64;
constexpr int64_t kHead = 320 * 64;
constexpr int64_t kInt8Head = kHead + 320 * 8;
constexpr int64_t kSecondTerms = 64 * 64 + 64 * 8;  // of the block that holds K and V

}  // namespace

TEST_CASE("weight bytes: int8 has a byte a weight, a scale and a sum an output, V twice") {
  const WeightBytes bytes = bytes_of(GgmlType::f32, {SchemeKind::int8});
  CHECK(bytes.in_memory == 2 * (kLayer + kLayerOutputs * 8 + kSecondTerms) + kInt8Head + kNorms);
  CHECK(bytes.per_step == bytes.in_memory + 64 * 4);
}

TEST_CASE("weight bytes: parameters count each tensor once, a tied table too") {
  const auto bytes = test::build_tiny_llama_gguf({});
  const auto file = GgufFile::parse(bytes, "mem");
  CHECK(parameter_count(build_llama(config_from_gguf(*file))) ==
        300 * 64 + 2 * (128 * 64 + 64 * 64 + 3 * 96 * 64) + 5 * 64);
}

TEST_CASE("weight bytes: int4 has half a byte a weight and f16s a group, the LM head int8") {
  const WeightBytes with_min = bytes_of(GgmlType::f32, {SchemeKind::int4, 32, true});
  CHECK(with_min.in_memory == 2 * (kLayer / 2 + kLayer / 32 * 4) + kInt8Head + kNorms);
  const WeightBytes symmetric = bytes_of(GgmlType::f32, {SchemeKind::int4, 64, false});
  CHECK(symmetric.in_memory == 2 * (kLayer / 2 + kLayer / 64 * 2) + kInt8Head + kNorms);
  // Groups of 128 pad 64 inputs to 128: only down keeps its size.
  const WeightBytes wide = bytes_of(GgmlType::f32, {SchemeKind::int4, 128, false});
  const int64_t padded = 2 * kLayer - 64 * 128;
  CHECK(wide.in_memory == 2 * (padded / 2 + padded / 128 * 2) + kInt8Head + kNorms);
}

TEST_CASE("weight bytes: keep has the size of the file's grid, int8 in groups where it has none") {
  const Scheme keep{SchemeKind::keep};
  const int64_t weights = 2 * kLayer + kHead;
  CHECK(bytes_of(GgmlType::q4_1, keep).in_memory == weights / 2 + weights / 32 * 4 + kNorms);
  CHECK(bytes_of(GgmlType::q4_0, keep).in_memory == weights / 2 + weights / 32 * 2 + kNorms);
  CHECK(bytes_of(GgmlType::q8_0, keep).in_memory == weights + weights / 32 * 2 + kNorms);
  CHECK(bytes_of(GgmlType::f16, keep).in_memory == weights + weights / 32 * 2 + kNorms);
}

TEST_CASE("weight bytes: fp32 has no padding but that of gate and up") {
  const WeightBytes bytes = bytes_of(GgmlType::f32, {SchemeKind::fp32});
  const int64_t layer = 128 * 64 + 64 * 64 + 256 * 64 + 64 * 96;
  CHECK(bytes.in_memory == 4 * (2 * layer + 300 * 64) + kNorms);
}

}  // namespace qllm
