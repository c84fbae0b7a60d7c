#include "shard_memory.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace qllm::cpu {
namespace {

constexpr size_t kLargePage = size_t{2} << 20;

void say(const LogFn& log, LogLevel level, const std::string& line) {
  if (log) log(level, line);
}

}  // namespace

ShardMemory::ShardMemory(const Topology& topology, const std::vector<int64_t>& bytes,
                         const ShardMemoryOptions& options) {
  for (size_t w = 0; w < bytes.size(); ++w) {
    PlacementOptions placement;
    placement.large_pages = options.large_pages;
    placement.hugetlb = options.hugetlb;
    placement.topology = &topology;
    placement.by_policy = true;
    placement.slot = topology.workers()[w];
    arenas_.emplace_back(static_cast<size_t>(std::max<int64_t>(bytes[w], 1)), placement);
  }
  if (options.hugetlb && !on_hugetlb()) {
    say(options.log, LogLevel::warning,
        "memory: not enough explicit large pages are free (see /proc/sys/vm/nr_hugepages); the "
        "weights lie on transparent or small ones");
  }
  for (size_t w = 0; options.lock && w < arenas_.size(); ++w) {
    if (!lock_memory(arenas_[w].data(), arenas_[w].bytes(), options.log)) break;
  }
}

int64_t ShardMemory::large_page_bytes() const {
  int64_t total = 0;
  for (const PlacedBuffer& arena : arenas_) {
    if (arena.bytes() < kLargePage) continue;  // asking costs a walk over all that is mapped
    const int64_t bytes = arena.on_hugetlb() ? static_cast<int64_t>(arena.bytes())
                                             : cpu::large_page_bytes(arena.data(), arena.bytes());
    if (bytes < 0) return -1;
    total += bytes;
  }
  return total;
}

bool ShardMemory::on_hugetlb() const {
  bool any = false;
  for (const PlacedBuffer& arena : arenas_) {
    if (arena.bytes() < kLargePage) continue;  // those never lie on them
    if (!arena.on_hugetlb()) return false;
    any = true;
  }
  return any;
}

bool lock_memory(const void* p, size_t bytes, const LogFn& log) {
  if (::mlock(p, bytes) == 0) return true;
  const int error = errno;
  rlimit limit = {};
  const bool known = ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  const std::string most =
      known ? fmt::format("; the limit is {} KiB (ulimit -l)", limit.rlim_cur >> 10) : "";
  say(log, LogLevel::warning,
      fmt::format("memory: {} KiB of weights cannot be locked: {}{}", (bytes + 1023) >> 10,
                  std::strerror(error), most));
  return false;
}

}  // namespace qllm::cpu
