#include "cpu_kv_storage.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/math.h"
#include "kv_layout.h"

namespace qllm::cpu {
namespace {

// How blocks lie, in files too: count up where kv_layout.h changes.
constexpr int kLayoutVersion = 2;

int64_t total_bytes(const KvShape& shape, KvFormat format, int64_t blocks) {
  uint64_t bytes = 1;
  const bool ok = shape.n_layers > 0 && shape.n_kv_heads > 0 && shape.head_dim > 0 && blocks > 0;
  require(!ok || shape.head_dim <= kMaxHeadDim, ErrorCode::unsupported,
          "KV cache: head dimension {}: the cpu takes at most {}", shape.head_dim, kMaxHeadDim);
  require(format == KvFormat::bf16 || format == KvFormat::int8, ErrorCode::unsupported,
          "KV cache: format {}: the cpu has bf16 and int8", to_string(format));
  const auto fits = [&](int64_t factor) {
    return checked_mul(bytes, static_cast<uint64_t>(factor), &bytes) &&
           bytes <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  };
  require(ok && fits(kv_head_bytes(format, shape.head_dim)) && fits(shape.n_layers) &&
              fits(shape.n_kv_heads) && fits(blocks),
          ErrorCode::invalid_argument,
          "KV cache: {} layers x {} heads x {} in {} blocks of {} tokens is no size",
          shape.n_layers, shape.n_kv_heads, shape.head_dim, blocks, kKvBlockTokens);
  return static_cast<int64_t>(bytes);
}

}  // namespace

int64_t kv_block_bytes(const KvShape& shape, KvFormat format) {
  return total_bytes(shape, format, 1);
}

std::vector<KvHeadGroup> group_kv_heads(const std::vector<WorkerSlot>& workers,
                                        int64_t n_kv_heads) {
  const auto n_workers = static_cast<int64_t>(workers.size());
  std::vector<KvHeadGroup> groups;
  // The slots of a node stand together (topology.h), unless they repeat on too few CPUs.
  for (int64_t first = 0; first < n_workers;) {
    int64_t end = first + 1;
    const auto node = [&](int64_t w) { return workers[static_cast<size_t>(w)].numa_node; };
    while (end < n_workers && node(end) == node(first)) ++end;
    const int64_t head = n_kv_heads * first / n_workers;
    const int64_t heads = n_kv_heads * end / n_workers - head;
    if (heads > 0) {
      groups.push_back({head, heads, static_cast<int>(first), static_cast<int>(end - first)});
    }
    first = end;
  }
  return groups;
}

CpuKvStorage::CpuKvStorage(const KvShape& shape, KvFormat format, int64_t blocks,
                           const Topology& topology, bool large_pages)
    : shape_(shape),
      format_(format),
      head_bytes_(kv_head_bytes(format, shape.head_dim)),
      groups_(group_kv_heads(topology.workers(), shape.n_kv_heads)) {
  total_bytes(shape, format, blocks);  // all products below are parts of this one
  block_bytes_ = kv_block_bytes(shape, format);
  heads_.resize(static_cast<size_t>(shape.n_kv_heads));
  for (const KvHeadGroup& group : groups_) {
    PlacementOptions options;
    options.large_pages = large_pages;
    options.reserve_only = true;
    options.by_policy = true;
    options.topology = &topology;
    options.slot = topology.workers()[static_cast<size_t>(group.first_worker)];
    const int64_t layer_stride = group.n_heads * head_bytes_;
    const int64_t block_stride = shape.n_layers * layer_stride;
    arenas_.emplace_back(static_cast<size_t>(blocks * block_stride), options);
    for (int64_t h = 0; h < group.n_heads; ++h) {
      heads_[static_cast<size_t>(group.first_head + h)] = {
          arenas_.back().as<std::byte>() + h * head_bytes_, block_stride, layer_stride};
    }
  }
}

int64_t CpuKvStorage::large_page_bytes() const {
  int64_t total = 0;
  for (const PlacedBuffer& arena : arenas_) {
    const int64_t bytes = cpu::large_page_bytes(arena.data(), arena.bytes());
    if (bytes < 0) return -1;
    total += bytes;
  }
  return total;
}

std::string CpuKvStorage::layout() const {
  return fmt::format("cpu {} {} blocks of {}", kLayoutVersion, to_string(format_), kKvBlockTokens);
}

template <typename F>
void CpuKvStorage::for_each_head(int32_t block, F f) const {
  for (int64_t layer = 0; layer < shape_.n_layers; ++layer) {
    for (int64_t h = 0; h < shape_.n_kv_heads; ++h) f(head(block, layer, h));
  }
}

void CpuKvStorage::open(int32_t block, bool fresh) {
  if (fresh) return;  // the system gives zeros
  for_each_head(block, [&](std::byte* p) { std::memset(p, 0, static_cast<size_t>(head_bytes_)); });
}

void CpuKvStorage::copy(int32_t from, int32_t to) noexcept {
  for (int64_t layer = 0; layer < shape_.n_layers; ++layer) {
    for (int64_t h = 0; h < shape_.n_kv_heads; ++h) {
      std::memcpy(head(to, layer, h), head(from, layer, h), static_cast<size_t>(head_bytes_));
    }
  }
}

void CpuKvStorage::read(int32_t block, std::span<std::byte> out) const noexcept {
  std::byte* to = out.data();
  for_each_head(block, [&](const std::byte* p) {
    std::memcpy(to, p, static_cast<size_t>(head_bytes_));
    to += head_bytes_;
  });
}

void CpuKvStorage::write(int32_t block, std::span<const std::byte> in) noexcept {
  const std::byte* from = in.data();
  for_each_head(block, [&](std::byte* p) {
    std::memcpy(p, from, static_cast<size_t>(head_bytes_));
    make_kv_values_finite(format_, shape_.head_dim, p);
    from += head_bytes_;
  });
}

}  // namespace qllm::cpu
