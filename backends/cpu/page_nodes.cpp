#include "page_nodes.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace qllm::cpu {
namespace {

constexpr size_t kAtOnce = 1024;  // pages of one question

// The nodes of pages; false where the system refuses.
bool ask(const std::array<void*, kAtOnce>& pages, size_t count, std::array<int, kAtOnce>* nodes) {
  return syscall(SYS_move_pages, 0, count, pages.data(), nullptr, nodes->data(), 0) == 0;
}

}  // namespace

int64_t NodeBytes::total() const {
  int64_t bytes = nowhere;
  for (const auto& [node, there] : on) bytes += there;
  return bytes;
}

int64_t NodeBytes::beside(int node) const {
  int64_t bytes = 0;
  for (const auto& [other, there] : on) bytes += other != node ? there : 0;
  return bytes;
}

void add_pages(const void* p, size_t bytes, NodeBytes* to) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(p);
  const uintptr_t end = begin + bytes;
  std::array<void*, kAtOnce> pages{};
  std::array<int, kAtOnce> nodes{};
  for (uintptr_t at = begin / page * page; at < end;) {
    size_t count = 0;
    for (; count < kAtOnce && at < end; at += page) pages[count++] = reinterpret_cast<void*>(at);
    if (!ask(pages, count, &nodes)) {
      to->known = false;
      to->nowhere += static_cast<int64_t>(bytes);
      return;
    }
    for (size_t i = 0; i < count; ++i) {
      const auto first = reinterpret_cast<uintptr_t>(pages[i]);
      const auto inside =
          static_cast<int64_t>(std::min(first + page, end) - std::max(first, begin));
      int64_t& there = nodes[i] >= 0 ? to->on[nodes[i]] : to->nowhere;  // -errno: not in memory
      there += inside;
    }
  }
}

}  // namespace qllm::cpu
