#include "backend/kv_pool.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "core/error.h"

namespace qllm {
namespace {

/// Multiply and fold: each token changes all bits of what comes after it.
uint64_t hash_tokens(KvTextId parent, std::span<const int32_t> tokens) {
  uint64_t h = parent;
  for (const int32_t token : tokens) {
    h = (h ^ static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15U;  // 2^64 / golden ratio
    h ^= h >> 32U;
  }
  return h;
}

KvPoolOptions checked(KvPoolOptions options) {
  require(options.blocks >= 1 && options.blocks <= std::numeric_limits<int32_t>::max(),
          ErrorCode::invalid_argument, "KV pool: {} blocks, expected 1 to 2^31 - 1",
          options.blocks);
  if (options.hash == nullptr) options.hash = hash_tokens;
  return options;
}

}  // namespace

KvPool::KvPool(std::unique_ptr<KvStorage> storage, const KvShape& shape,
               const KvPoolOptions& options)
    : storage_(std::move(storage)),
      shape_(shape),
      options_(checked(options)),
      blocks_(static_cast<size_t>(options.blocks)),
      buckets_(std::bit_ceil(static_cast<size_t>(options.blocks)), kNone) {
  freed_.reserve(blocks_.size());
}

KvPoolStats KvPool::stats() const {
  const std::lock_guard lock(mutex_);
  KvPoolStats s;
  s.blocks = options_.blocks;
  s.held = held_;
  s.kept = kept_;
  s.freed = static_cast<int64_t>(freed_.size());
  s.fresh = options_.blocks - fresh_;
  return s;
}

int32_t KvPool::take_one() {
  int32_t block = kNone;
  if (!freed_.empty()) {
    block = freed_.back();
    freed_.pop_back();
  } else if (fresh_ < options_.blocks) {
    block = fresh_++;
  } else {
    block = oldest_;
    unkeep(block);
    forget(block);
  }
  at(block).holders = 1;
  ++held_;
  return block;
}

void KvPool::take(int64_t count, std::vector<int32_t>* table) {
  if (count <= 0) return;
  const size_t first = table->size();
  int32_t fresh = 0;  // blocks below this one were used before
  {
    const std::lock_guard lock(mutex_);
    const int64_t available = options_.blocks - held_;
    require(count <= available, ErrorCode::out_of_memory,
            "KV memory: {} more blocks of {} tokens asked, {} of {} are free; give the cache more "
            "memory or end other sequences",
            count, kKvBlockTokens, available, options_.blocks);
    table->reserve(first + static_cast<size_t>(count));
    fresh = fresh_;
    for (int64_t i = 0; i < count; ++i) table->push_back(take_one());
  }
  // Outside of the lock: clearing takes a while, and nobody else knows these blocks.
  try {
    for (size_t i = first; i < table->size(); ++i) {
      storage_->open((*table)[i], (*table)[i] >= fresh);
    }
  } catch (...) {
    release(std::span(*table).subspan(first));
    table->resize(first);
    throw;
  }
}

int32_t KvPool::writable(int32_t block) {
  {
    const std::lock_guard lock(mutex_);
    if (at(block).holders == 1) {
      forget(block);
      return block;
    }
  }
  std::vector<int32_t> copy;
  take(1, &copy);
  storage_->copy(block, copy.front());
  release({&block, 1});
  return copy.front();
}

void KvPool::hold(std::span<const int32_t> blocks) {
  const std::lock_guard lock(mutex_);
  for (const int32_t block : blocks) ++at(block).holders;
}

void KvPool::release(std::span<const int32_t> blocks) noexcept {
  const std::lock_guard lock(mutex_);
  // Backwards: without what stands before it a block is of no use, so the last goes first.
  for (size_t i = blocks.size(); i > 0; --i) release_one(blocks[i - 1]);
}

void KvPool::release_one(int32_t block) {
  if (--at(block).holders > 0) return;
  --held_;
  if (at(block).text == kKvUnknownText) {
    freed_.push_back(block);
    return;
  }
  keep(block);
  if (kept_ <= options_.kept_blocks) return;
  const int32_t oldest = oldest_;
  unkeep(oldest);
  forget(oldest);
  freed_.push_back(oldest);
}

void KvPool::keep(int32_t block) {
  at(block).older = newest_;
  at(block).newer = kNone;
  (newest_ == kNone ? oldest_ : at(newest_).newer) = block;
  newest_ = block;
  ++kept_;
}

void KvPool::unkeep(int32_t block) {
  const Block& b = at(block);
  (b.older == kNone ? oldest_ : at(b.older).newer) = b.newer;
  (b.newer == kNone ? newest_ : at(b.newer).older) = b.older;
  --kept_;
}

int32_t* KvPool::bucket(KvTextId parent, std::span<const int32_t> tokens) {
  return &buckets_[options_.hash(parent, tokens) & (buckets_.size() - 1)];
}

int32_t KvPool::lookup(KvTextId parent, std::span<const int32_t> tokens) {
  int32_t block = *bucket(parent, tokens);
  while (block != kNone) {
    const Block& b = at(block);
    // The hash only finds candidates. By induction equal parents mean equal texts.
    if (b.parent == parent && std::equal(tokens.begin(), tokens.end(), b.tokens)) break;
    block = b.next_in_bucket;
  }
  return block;
}

void KvPool::forget(int32_t block) {
  Block& b = at(block);
  if (b.text == kKvUnknownText) return;
  int32_t* link = bucket(b.parent, b.tokens);
  while (*link != block) link = &at(*link).next_in_bucket;
  *link = b.next_in_bucket;
  b.text = kKvUnknownText;
}

KvTextId KvPool::publish(int32_t block, KvTextId parent, std::span<const int32_t> tokens) {
  require(tokens.size() == static_cast<size_t>(kKvBlockTokens), ErrorCode::internal,
          "KV pool: a block of {} tokens published", tokens.size());
  if (parent == kKvUnknownText) return kKvUnknownText;
  const std::lock_guard lock(mutex_);
  const int32_t known = lookup(parent, tokens);
  if (known != kNone) return at(known).text;
  Block& b = at(block);
  forget(block);
  b.parent = parent;
  b.text = ++last_text_;
  std::copy(tokens.begin(), tokens.end(), b.tokens);
  int32_t* const first = bucket(parent, tokens);
  b.next_in_bucket = *first;
  *first = block;
  return b.text;
}

bool KvPool::find(KvTextId parent, std::span<const int32_t> tokens, int32_t* block,
                  KvTextId* text) {
  if (parent == kKvUnknownText || tokens.size() != static_cast<size_t>(kKvBlockTokens)) {
    return false;
  }
  const std::lock_guard lock(mutex_);
  const int32_t known = lookup(parent, tokens);
  if (known == kNone) return false;
  if (at(known).holders++ == 0) {
    unkeep(known);
    ++held_;
  }
  *block = known;
  *text = at(known).text;
  return true;
}

}  // namespace qllm
