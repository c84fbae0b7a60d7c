// Where the shards of the workers lie: one arena per worker. What decides on nodes and page sizes
// of weights decides here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/log.h"
#include "placed_memory.h"
#include "topology.h"

namespace qllm::cpu {

struct ShardMemoryOptions {
  bool large_pages = true;  // transparent ones
  bool hugetlb = false;     // from the pages that the administrator set aside; else as above
  bool lock = false;        // mlock
  LogFn log;
};

class ShardMemory {
 public:
  ShardMemory() = default;
  /// bytes[w] for worker w of the topology. Throws out_of_memory.
  ShardMemory(const Topology& topology, const std::vector<int64_t>& bytes,
              const ShardMemoryOptions& options);

  /// Where worker w's shards begin.
  std::byte* arena(size_t worker) const { return arenas_[worker].as<std::byte>(); }
  /// How many bytes lie on large pages; -1 where it cannot be told.
  int64_t large_page_bytes() const;
  bool on_hugetlb() const;

 private:
  std::vector<PlacedBuffer> arenas_;
};

/// Keeps [p, p+bytes) in memory (mlock). Where limits forbid it, a line to `log` that names them;
/// false then.
bool lock_memory(const void* p, size_t bytes, const LogFn& log);

}  // namespace qllm::cpu
