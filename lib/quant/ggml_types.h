// The tensor types of GGUF files that this library reads, and their block sizes.
// Source: the type list of the GGUF specification and the block layouts documented with ggml.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qllm {

/// Type ids as they stand in a GGUF file.
enum class GgmlType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;   // "Q4_1"
  int64_t block_elements;  // values in a block; a row is a whole number of blocks
  int64_t block_bytes;
};

/// The entry of a type id read from a file; null for a type that this library does not read.
const GgmlTypeInfo* find_ggml_type(uint32_t id);

/// The entry of a known type.
const GgmlTypeInfo& ggml_type_info(GgmlType type);

/// A name for messages: "IQ2_XXS (16)" for ids that exist elsewhere, "99" for unknown ones.
std::string describe_ggml_type(uint32_t id);

}  // namespace qllm
