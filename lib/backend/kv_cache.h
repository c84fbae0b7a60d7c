// One sequence in a KV pool: its tokens and the blocks that hold their keys and values.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/kv_pool.h"

namespace qllm {

/// Token i lies in row i % kKvBlockTokens of block blocks()[i / kKvBlockTokens]. `length` tokens
/// are valid; a Plan appends. One thread at a time; several caches on one pool may be used at once.
class KvCache {
 public:
  /// Holds at most `capacity` tokens; takes blocks only as it grows.
  KvCache(std::shared_ptr<KvPool> pool, int64_t capacity);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  KvPool& pool() const { return *pool_; }
  int64_t capacity() const { return capacity_; }
  int64_t length() const { return static_cast<int64_t>(tokens_.size()); }
  std::span<const int32_t> tokens() const { return tokens_; }
  std::span<const int32_t> blocks() const { return blocks_; }
  /// Of the blocks held, shared ones included.
  int64_t bytes() const;

  /// Makes room for `count` tokens behind the last, which nobody else can see. Throws context_full
  /// beyond the capacity, out_of_memory where the pool has no block left; the tokens are then as
  /// before.
  void reserve(int64_t count);
  /// Called by Plan::execute once the keys and values of these tokens are written. Room for them
  /// was reserved. Allocates nothing.
  void advance(std::span<const int32_t> tokens);
  /// Forgets all tokens from `length` on and gives blocks back. Precondition: length <= length().
  void truncate(int64_t length);
  /// A sequence of the same tokens on the same blocks.
  std::unique_ptr<KvCache> fork() const;
  /// Makes this the longest known prefix of `tokens`: what it holds of them itself, and whole
  /// blocks that any sequence of the pool has computed. Returns the length.
  int64_t reuse_prefix(std::span<const int32_t> tokens);
  /// Takes `tokens` into an empty cache without sharing them with others, for bytes from outside:
  /// the caller writes all of blocks(). Throws as reserve().
  void restore(std::span<const int32_t> tokens);

 private:
  int64_t full_blocks() const { return length() / kKvBlockTokens; }
  /// The text up to the beginning of a block, from which it may be found or published.
  KvTextId text_before(int64_t block) const;

  std::shared_ptr<KvPool> pool_;
  int64_t capacity_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> blocks_;  // those of the tokens, then those reserved
  std::vector<KvTextId> texts_;  // [full blocks]: the text up to the end of each
  int64_t restored_ = 0;         // so many tokens came by restore(): all behind them rest on those
};

}  // namespace qllm
