// Which values may share memory: a value's buffer is free again behind its last reader.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace qllm {

struct BufferPlan {
  struct Buffer {
    Rows rows = Rows::tokens;
    int64_t width = 0;  // the widest value that uses it
  };
  std::vector<Buffer> buffers;
  std::vector<int32_t> buffer_of;  // per value
};

/// The values an op reads (kNone left out) and the one it writes.
std::vector<ValueId> inputs_of(const Op& op);
ValueId output_of(const Op& op);

/// Greedy assignment in op order. No op's output shares a buffer with one of its inputs.
BufferPlan plan_buffers(const Graph& graph);

}  // namespace qllm
