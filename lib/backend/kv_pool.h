// Which blocks of a KV storage are whose: reference counts, blocks shared by content, and which go
// first when there is no room. Nothing here knows what a block holds or where it lies.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backend/kv_format.h"
#include "backend/kv_storage.h"

namespace qllm {

/// Names the text from the start of a sequence up to the end of a full block; never used twice.
using KvTextId = uint64_t;
inline constexpr KvTextId kKvEmptyText = 0;               // before the first block
inline constexpr KvTextId kKvUnknownText = ~KvTextId{0};  // bytes that nobody may share

struct KvPoolOptions {
  int64_t blocks = 0;       // all there are
  int64_t kept_blocks = 0;  // at most so many stay known when nobody holds them
  /// Of a block's tokens behind a text; null: the pool's own. Tests give one that collides.
  uint64_t (*hash)(KvTextId parent, std::span<const int32_t> tokens) = nullptr;
};

struct KvPoolStats {
  int64_t blocks = 0;
  int64_t held = 0;   // by one or more sequences
  int64_t kept = 0;   // by none, but their content is known
  int64_t freed = 0;  // used before, content forgotten
  int64_t fresh = 0;  // never used: no memory behind them yet
};

/// Safe for several threads at once. A block is written only by the one sequence that holds it, and
/// not while its content is published.
class KvPool {
 public:
  /// Throws invalid_argument for fewer than one block or more than 2^31 - 1.
  KvPool(std::unique_ptr<KvStorage> storage, const KvShape& shape, const KvPoolOptions& options);
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  KvStorage& storage() const { return *storage_; }
  const KvShape& shape() const { return shape_; }
  KvPoolStats stats() const;

  /// Appends `count` blocks, zeroed and held once, to `table`: those freed last before those never
  /// used, then known ones that nobody holds, least recently used first. Throws out_of_memory and
  /// then gives none.
  void take(int64_t count, std::vector<int32_t>* table);
  /// The block itself where the caller alone holds it (its content is then no longer known), else a
  /// copy, taken in its place. Throws out_of_memory, and then the caller holds what it held.
  int32_t writable(int32_t block);
  /// One more holder for each.
  void hold(std::span<const int32_t> blocks);
  /// One holder less for each. The last block is the least recently used.
  void release(std::span<const int32_t> blocks) noexcept;

  /// Makes a full block known as what follows `parent`; it must be held. Returns the name of the
  /// text up to its end. Where another block is known for the same text that one stays, and its
  /// name is returned.
  KvTextId publish(int32_t block, KvTextId parent, std::span<const int32_t> tokens);
  /// Holds the block of those tokens behind `parent` where there is one: false where there is none.
  bool find(KvTextId parent, std::span<const int32_t> tokens, int32_t* block, KvTextId* text);

 private:
  struct Block {
    int32_t holders = 0;
    int32_t next_in_bucket = kNone;
    int32_t older = kNone;  // of those kept
    int32_t newer = kNone;
    KvTextId parent = kKvUnknownText;
    KvTextId text = kKvUnknownText;  // unknown: not published
    int32_t tokens[kKvBlockTokens] = {};
  };
  static constexpr int32_t kNone = -1;

  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  int32_t take_one();
  int32_t* bucket(KvTextId parent, std::span<const int32_t> tokens);
  int32_t lookup(KvTextId parent, std::span<const int32_t> tokens);
  void forget(int32_t block);
  void keep(int32_t block);
  void unkeep(int32_t block);
  void release_one(int32_t block);

  const std::unique_ptr<KvStorage> storage_;
  const KvShape shape_;
  const KvPoolOptions options_;
  mutable std::mutex mutex_;
  std::vector<Block> blocks_;
  std::vector<int32_t> buckets_;  // by hash: the first block, kNone
  std::vector<int32_t> freed_;    // a stack
  int32_t fresh_ = 0;             // blocks from here on were never used
  int32_t oldest_ = kNone;        // of those kept
  int32_t newest_ = kNone;
  int64_t kept_ = 0;
  int64_t held_ = 0;
  KvTextId last_text_ = kKvEmptyText;
};

}  // namespace qllm
