#include "backend/kv_format.h"

#include "core/error.h"

namespace qllm {

std::string_view to_string(KvFormat format) { return format == KvFormat::bf16 ? "bf16" : "int8"; }

KvFormat parse_kv_format(std::string_view name) {
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
    if (name == to_string(format)) return format;
  }
  fail(ErrorCode::invalid_argument, "kv_format: expected bf16 or int8, found {}", name);
}

}  // namespace qllm
