// Memory on pages of a given kind.
#pragma once

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "placed_memory.h"

namespace qllm::bench {

enum class Pages { small, transparent, reserved };

inline const char* pages_name(Pages pages) {
  switch (pages) {
    case Pages::small:
      return "4 KiB";
    case Pages::transparent:
      return "transparent";
    case Pages::reserved:
      break;
  }
  return "hugetlb";
}

/// Pages of the default size that were reserved and are free (proc_meminfo(5)).
inline int64_t free_reserved_pages() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key; meminfo >> key;) {
    int64_t value = 0;
    if (key == "HugePages_Free:" && meminfo >> value) return value;
    meminfo.ignore(1 << 16, '\n');
  }
  return 0;
}

/// `bytes` of memory in a worker's node; empty where the system has no such pages.
class PagedMemory {
 public:
  PagedMemory() = default;
  /// `bytes` a multiple of 2 MiB. Sets `why` where nothing comes of it.
  PagedMemory(int64_t bytes, Pages pages, const cpu::Topology& topology,
              const cpu::WorkerSlot& slot, std::string* why) {
    const auto size = static_cast<size_t>(bytes);
    if (pages == Pages::reserved) {
      map_reserved(size, topology, slot, why);
      return;
    }
    placed_ = cpu::PlacedBuffer(size, {pages == Pages::transparent, &topology, slot});
    if (pages == Pages::small) madvise(placed_.data(), size, MADV_NOHUGEPAGE);
    data_ = placed_.as<char>();
  }
  ~PagedMemory() {
    if (mapped_ > 0) munmap(data_, mapped_);
  }
  PagedMemory(PagedMemory&& other) noexcept
      : placed_(std::move(other.placed_)),
        data_(std::exchange(other.data_, nullptr)),
        mapped_(std::exchange(other.mapped_, 0)) {}
  PagedMemory& operator=(PagedMemory&&) = delete;

  char* data() const { return data_; }

 private:
  void map_reserved(size_t bytes, const cpu::Topology& topology, const cpu::WorkerSlot& slot,
                    std::string* why) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (p == MAP_FAILED) {
      *why = fmt::format("{} MiB wanted, {} pages reserved and free (vm.nr_hugepages): {}",
                         bytes >> 20, free_reserved_pages(), std::strerror(errno));
      return;
    }
    data_ = static_cast<char*>(p);
    mapped_ = bytes;
    topology.bind_memory(p, bytes, slot);
    // A control group may refuse a page that is reserved: here, not by a signal at the first touch.
    // Kernels before 5.14 do not know this and answer EINVAL.
    constexpr int kPopulateWrite = 23;
    if (madvise(p, bytes, kPopulateWrite) == 0 || errno == EINVAL) return;
    *why = fmt::format("reserved pages were refused: {}", std::strerror(errno));
    munmap(std::exchange(data_, nullptr), std::exchange(mapped_, 0));
  }

  cpu::PlacedBuffer placed_;
  char* data_ = nullptr;
  size_t mapped_ = 0;  // by map_reserved
};

}  // namespace qllm::bench
