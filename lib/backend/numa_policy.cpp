#include "backend/numa_policy.h"

#include "core/error.h"

namespace qllm {

NumaPolicy parse_numa_policy(std::string_view name) {
  if (name.empty()) return NumaPolicy::split;
  for (const NumaPolicy policy :
       {NumaPolicy::split, NumaPolicy::interleave, NumaPolicy::local, NumaPolicy::replicate}) {
    if (to_string(policy) == name) return policy;
  }
  fail(ErrorCode::invalid_argument,
       "numa: expected split, interleave, local or replicate, found \"{}\"", name);
}

std::string to_string(NumaPolicy policy) {
  switch (policy) {
    case NumaPolicy::split:
      return "split";
    case NumaPolicy::interleave:
      return "interleave";
    case NumaPolicy::local:
      return "local";
    case NumaPolicy::replicate:
      return "replicate";
  }
  return "unknown";
}

}  // namespace qllm
