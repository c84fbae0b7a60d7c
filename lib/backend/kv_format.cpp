#include "backend/kv_format.h"

#include "core/error.h"

namespace qllm {

std::string_view to_string(KvFormat format) {
  switch (format) {
    case KvFormat::bf16:
      return "bf16";
    case KvFormat::int8:
      return "int8";
    case KvFormat::f16:
      return "f16";
  }
  return "unknown";
}

KvFormat parse_kv_format(std::string_view name) {
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8, KvFormat::f16}) {
    if (name == to_string(format)) return format;
  }
  fail(ErrorCode::invalid_argument, "kv_format: expected bf16, int8 or f16, found {}", name);
}

}  // namespace qllm
