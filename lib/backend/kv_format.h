// How keys and values are held, and in what portions.
#pragma once

#include <cstdint>
#include <string_view>

namespace qllm {

/// Tokens of a block: what sequences share, and what the pool gives and takes.
inline constexpr int64_t kKvBlockTokens = 64;

enum class KvFormat : uint8_t {
  bf16,  ///< bfloat16, rounded to nearest even
  int8,  ///< int8 with a float scale per token and KV head, for K and for V (quant/int8.h)
  f16,   ///< IEEE half precision, rounded to nearest even; beyond its range the largest finite one
};

/// "bf16", "int8", "f16".
std::string_view to_string(KvFormat format);

/// Throws invalid_argument for any other name.
KvFormat parse_kv_format(std::string_view name);

}  // namespace qllm
