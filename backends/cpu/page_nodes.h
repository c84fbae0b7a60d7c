// Where pages lie: asked of the kernel, page by page (move_pages(2), which moves nothing when no
// nodes are given).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace qllm::cpu {

struct NodeBytes {
  std::map<int, int64_t> on;  // by operating system index of the memory node
  int64_t nowhere = 0;        // never touched, or not in memory now
  bool known = true;          // false: the kernel does not answer

  int64_t total() const;
  int64_t beside(int node) const;  // bytes on other nodes
};

/// Adds [p, p+bytes) to `to`; pages at the ends count as far as they are inside.
void add_pages(const void* p, size_t bytes, NodeBytes* to);

}  // namespace qllm::cpu
