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

/// What a backend that runs several ops as one does to lifetimes.
struct Stages {
  std::vector<int32_t> of_op;  // ascending; ops of one stage run side by side. Empty: each alone
  std::vector<bool> unstored;  // per value: never in memory, gets no buffer. Empty: none
};

/// Greedy assignment in op order. No value made in a stage shares a buffer with one that is read or
/// made there; so no op's output shares one with its inputs.
BufferPlan plan_buffers(const Graph& graph, const Stages& stages = {});

}  // namespace qllm
