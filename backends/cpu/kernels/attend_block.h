// What the parts of attention (attend_impl.h) hand each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attend.h"

namespace qllm::cpu {

inline constexpr int64_t kAttendBlock = 64;   // tokens
inline constexpr int64_t kAttendLanes = 16;   // of a line
inline constexpr int64_t kAttendLine = 64;    // bytes
inline constexpr float kAttendNone = -3e38F;  // the maximum before any token

/// One block as it lies.
struct AttendBlock {
  const std::byte* k;
  const std::byte* v;
  const float* k_scale;  // int8 only
  const float* v_scale;
  ptrdiff_t ahead;  // to the block to prefetch, or 0
  int64_t first;    // position of its first token
  int64_t begin;    // tokens [begin, end) that any row sees
  int64_t end;
  bool whole;  // all rows see all tokens
};

namespace {

/// A token of the block, or its begin or end.
inline int64_t attend_clamp(int64_t token) {
  return token < 0 ? 0 : token < kAttendBlock ? token : kAttendBlock;
}

}  // namespace
}  // namespace qllm::cpu
