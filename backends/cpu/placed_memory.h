// Memory that lies where its worker reads it: anonymous mapping, large pages where given, bound to
// a node, touched by whoever fills it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "topology.h"

namespace qllm::cpu {

struct PlacementOptions {
  bool large_pages = true;             // MADV_HUGEPAGE
  const Topology* topology = nullptr;  // null: no binding
  WorkerSlot slot;
  bool by_policy = false;     // where the policy says, which may be several nodes
  bool reserve_only = false;  // much of it may never be touched: MAP_NORESERVE
  bool hugetlb = false;       // first try MAP_HUGETLB, from one large page up
};

/// Zeroed, aligned to 2 MiB from one large page up, to 4096 below. Move-only; unmaps itself.
class PlacedBuffer {
 public:
  PlacedBuffer() = default;
  /// Throws out_of_memory, naming the size in bytes.
  PlacedBuffer(size_t bytes, const PlacementOptions& options);
  ~PlacedBuffer();
  PlacedBuffer(PlacedBuffer&& other) noexcept;
  PlacedBuffer& operator=(PlacedBuffer&& other) noexcept;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// Whether it lies on explicit large pages.
  bool on_hugetlb() const { return hugetlb_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  bool hugetlb_ = false;
};

/// Bytes of [p, p+bytes) that lie on large pages, from /proc/self/smaps; -1 where it cannot be
/// told.
int64_t large_page_bytes(const void* p, size_t bytes);

}  // namespace qllm::cpu
