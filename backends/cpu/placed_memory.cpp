#include "placed_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "core/error.h"

namespace qllm::cpu {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kLargePage = size_t{2} << 20;

size_t mapped_bytes(size_t bytes, size_t page = kPage) { return (bytes + page - 1) / page * page; }

void bind(void* p, size_t bytes, const PlacementOptions& options) {
  if (options.topology == nullptr) return;
  if (options.by_policy) {
    options.topology->place_memory(p, bytes, options.slot);
  } else {
    options.topology->bind_memory(p, bytes, options.slot);
  }
}

/// Explicit large pages for [bytes], all there and on the slot's node, or null: pages that are
/// missing when they are first touched would end the process.
void* map_hugetlb(size_t bytes, const PlacementOptions& options) {
  constexpr int kTwoMiB = 21 << 26;   // MAP_HUGE_2MB
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, Linux 5.14
  const size_t size = mapped_bytes(bytes, kLargePage);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | kTwoMiB;
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  bind(p, size, options);
  if (madvise(p, size, kPopulateWrite) == 0) return p;
  munmap(p, size);
  return nullptr;
}

// Anonymous zeroed pages at a multiple of `alignment`, or null.
void* map_aligned(size_t bytes, size_t alignment, bool reserve_only) {
  const size_t slack = alignment - kPage;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (reserve_only ? MAP_NORESERVE : 0);
  void* mapping = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapping);
  const size_t head = (alignment - reinterpret_cast<uintptr_t>(begin) % alignment) % alignment;
  if (head > 0) munmap(begin, head);
  if (head < slack) munmap(begin + head + bytes, slack - head);
  return begin + head;
}

// One "from-to perms ..." line of smaps; the lines of figures below it, of which "Anonymous" begins
// as a number does, change nothing.
void parse_range(const std::string& line, uintptr_t* from, uintptr_t* to) {
  const char* end = line.data() + line.size();
  uintptr_t low = 0;
  uintptr_t high = 0;
  const auto first = std::from_chars(line.data(), end, low, 16);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-') return;
  const auto last = std::from_chars(first.ptr + 1, end, high, 16);
  if (last.ec != std::errc() || last.ptr == end || *last.ptr != ' ') return;
  *from = low;
  *to = high;
}

int64_t parse_kilobytes(const std::string& line, size_t begin) {
  begin = line.find_first_not_of(' ', begin);
  if (begin == std::string::npos) return 0;
  int64_t value = 0;
  std::from_chars(line.data() + begin, line.data() + line.size(), value);
  return value * 1024;
}

}  // namespace

PlacedBuffer::PlacedBuffer(size_t bytes, const PlacementOptions& options) {
  if (bytes == 0) return;
  // Above this, rounding up and the slack for alignment could overflow.
  constexpr size_t kMost = std::numeric_limits<ptrdiff_t>::max() - 2 * kLargePage;
  const size_t alignment = bytes >= kLargePage ? kLargePage : kPage;
  if (options.hugetlb && bytes >= kLargePage && bytes <= kMost) {
    data_ = map_hugetlb(bytes, options);
    bytes_ = data_ != nullptr ? bytes : 0;
    hugetlb_ = data_ != nullptr;
    if (hugetlb_) return;
  }
  void* const p =
      bytes <= kMost ? map_aligned(mapped_bytes(bytes), alignment, options.reserve_only) : nullptr;
  require(p != nullptr, ErrorCode::out_of_memory, "memory: cannot map {} bytes", bytes);
  data_ = p;
  bytes_ = bytes;
  // Both are wishes: the buffer is right without them, only slower.
  if (options.large_pages && bytes >= kLargePage) madvise(p, mapped_bytes(bytes), MADV_HUGEPAGE);
  bind(p, mapped_bytes(bytes), options);
}

PlacedBuffer::~PlacedBuffer() {
  if (data_ != nullptr) munmap(data_, mapped_bytes(bytes_, hugetlb_ ? kLargePage : kPage));
}

PlacedBuffer::PlacedBuffer(PlacedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      hugetlb_(std::exchange(other.hugetlb_, false)) {}

PlacedBuffer& PlacedBuffer::operator=(PlacedBuffer&& other) noexcept {
  PlacedBuffer taken(std::move(other));  // unmaps what this one held
  std::swap(data_, taken.data_);
  std::swap(bytes_, taken.bytes_);
  std::swap(hugetlb_, taken.hugetlb_);
  return *this;
}

int64_t large_page_bytes(const void* p, size_t bytes) {
  std::ifstream smaps("/proc/self/smaps");
  if (!smaps) return -1;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(p);
  const uintptr_t end = begin + bytes;
  constexpr std::string_view kKey = "AnonHugePages:";
  int64_t total = 0;
  uintptr_t from = 0;
  uintptr_t to = 0;
  for (std::string line; std::getline(smaps, line);) {
    if (line.compare(0, kKey.size(), kKey) != 0) {
      parse_range(line, &from, &to);
      continue;
    }
    if (to <= begin || from >= end) continue;
    // The kernel may have joined the buffer with its neighbours: no more than lies in it.
    const int64_t overlap = static_cast<int64_t>(std::min(end, to) - std::max(begin, from));
    total += std::min(parse_kilobytes(line, kKey.size()), overlap);
  }
  return total;
}

}  // namespace qllm::cpu
