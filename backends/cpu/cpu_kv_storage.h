// The blocks of a KV pool in this machine's memory: mapped once, touched as blocks are first used,
// each KV head on the node of the workers that read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/kv_format.h"
#include "backend/kv_storage.h"
#include "placed_memory.h"
#include "topology.h"

namespace qllm::cpu {

/// KV heads [first_head, first_head + n_heads) lie on one node; workers [first_worker, first_worker
/// + n_workers) are that node's.
struct KvHeadGroup {
  int64_t first_head = 0;
  int64_t n_heads = 0;
  int first_worker = 0;
  int n_workers = 0;
};

/// Heads shared out over the nodes of the workers, by the number of workers of each. Groups with no
/// head or no worker are left out.
std::vector<KvHeadGroup> group_kv_heads(const std::vector<WorkerSlot>& workers, int64_t n_kv_heads);

class CpuKvStorage final : public KvStorage {
 public:
  /// Throws invalid_argument for a shape that is none or more bytes than there are addresses,
  /// unsupported for a head_dim beyond kMaxHeadDim, out_of_memory.
  CpuKvStorage(const KvShape& shape, KvFormat format, int64_t blocks, const Topology& topology,
               bool large_pages);

  KvFormat format() const { return format_; }
  const KvShape& shape() const { return shape_; }
  const std::vector<KvHeadGroup>& groups() const { return groups_; }

  /// The keys and values of one head (kv_layout.h), kv_head_bytes long; the heads of one group,
  /// layer and block follow each other.
  std::byte* head(int32_t block, int64_t layer, int64_t kv_head) const noexcept {
    const HeadPlace& place = heads_[static_cast<size_t>(kv_head)];
    return place.base + block * place.block_stride + layer * place.layer_stride;
  }

  /// Of what blocks have taken so far; -1 where it cannot be told.
  int64_t large_page_bytes() const;

  int64_t block_bytes() const override { return block_bytes_; }
  std::string layout() const override;
  void open(int32_t block, bool fresh) override;
  void copy(int32_t from, int32_t to) noexcept override;
  void read(int32_t block, std::span<std::byte> out) const noexcept override;
  void write(int32_t block, std::span<const std::byte> in) noexcept override;

 private:
  struct HeadPlace {
    std::byte* base = nullptr;
    int64_t block_stride = 0;
    int64_t layer_stride = 0;
  };
  /// Calls f(begin of a head, bytes of it) in the order layer, head, wherever they lie.
  template <typename F>
  void for_each_head(int32_t block, F f) const;

  KvShape shape_;
  KvFormat format_;
  int64_t head_bytes_ = 0;
  int64_t block_bytes_ = 0;
  std::vector<KvHeadGroup> groups_;
  std::vector<PlacedBuffer> arenas_;  // [groups]: [block][layer][head of the group]
  std::vector<HeadPlace> heads_;
};

/// Bytes of one block. Throws as CpuKvStorage does.
int64_t kv_block_bytes(const KvShape& shape, KvFormat format);

}  // namespace qllm::cpu
