#include "backend/kv_cache.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/math.h"

namespace qllm {

KvCache::KvCache(std::shared_ptr<KvPool> pool, int64_t capacity)
    : pool_(std::move(pool)), capacity_(capacity) {
  require(capacity >= 1, ErrorCode::invalid_argument, "KV cache: a capacity of {} tokens",
          capacity);
  // Steps must not allocate. The system backs these pages only as they are written.
  const int64_t blocks = ceil_div(capacity, kKvBlockTokens);
  tokens_.reserve(static_cast<size_t>(capacity));
  blocks_.reserve(static_cast<size_t>(blocks));
  texts_.reserve(static_cast<size_t>(blocks));
}

KvCache::~KvCache() { pool_->release(blocks_); }

int64_t KvCache::bytes() const {
  return static_cast<int64_t>(blocks_.size()) * pool_->storage().block_bytes();
}

void KvCache::reserve(int64_t count) {
  require(count >= 0 && count <= capacity_ - length(), ErrorCode::context_full,
          "context is full: {} tokens held and {} more do not fit into {}", length(), count,
          capacity_);
  if (count == 0) return;
  if (length() % kKvBlockTokens != 0) {
    int32_t& partial = blocks_[static_cast<size_t>(full_blocks())];
    partial = pool_->writable(partial);
  }
  const int64_t need = ceil_div(length() + count, kKvBlockTokens);
  pool_->take(need - static_cast<int64_t>(blocks_.size()), &blocks_);
}

void KvCache::advance(std::span<const int32_t> tokens) {
  int64_t block = full_blocks();
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (; block < full_blocks(); ++block) {
    const auto begin = static_cast<size_t>(block * kKvBlockTokens);
    const auto content = std::span<const int32_t>(tokens_).subspan(begin, kKvBlockTokens);
    texts_.push_back(
        pool_->publish(blocks_[static_cast<size_t>(block)], text_before(block), content));
  }
}

KvTextId KvCache::text_before(int64_t block) const {
  if (restored_ > 0) return kKvUnknownText;
  return block == 0 ? kKvEmptyText : texts_[static_cast<size_t>(block - 1)];
}

void KvCache::truncate(int64_t length) {
  tokens_.resize(static_cast<size_t>(length));
  const auto keep = static_cast<size_t>(ceil_div(length, kKvBlockTokens));
  pool_->release(std::span(blocks_).subspan(keep));
  blocks_.resize(keep);
  texts_.resize(static_cast<size_t>(full_blocks()));
  restored_ = std::min(restored_, length);
}

std::unique_ptr<KvCache> KvCache::fork() const {
  auto copy = std::make_unique<KvCache>(pool_, capacity_);
  const auto used =
      std::span(blocks_).first(static_cast<size_t>(ceil_div(length(), kKvBlockTokens)));
  pool_->hold(used);
  copy->blocks_.assign(used.begin(), used.end());
  copy->tokens_ = tokens_;
  copy->texts_ = texts_;
  copy->restored_ = restored_;
  return copy;
}

int64_t KvCache::reuse_prefix(std::span<const int32_t> tokens) {
  tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(capacity_)));
  const auto differ = std::mismatch(tokens_.begin(), tokens_.end(), tokens.begin(), tokens.end());
  const int64_t own = differ.first - tokens_.begin();
  // What came from a file is not mixed with what was computed: those are looked up from the start.
  const int64_t first = restored_ > 0 ? 0 : own / kKvBlockTokens;
  KvTextId text = first == 0 ? kKvEmptyText : texts_[static_cast<size_t>(first - 1)];
  std::vector<int32_t> blocks;
  std::vector<KvTextId> texts;
  auto rest = tokens.subspan(static_cast<size_t>(first * kKvBlockTokens));
  constexpr auto kFull = static_cast<size_t>(kKvBlockTokens);
  for (int32_t block = 0; rest.size() >= kFull; rest = rest.subspan(kFull)) {
    if (!pool_->find(text, rest.first(kFull), &block, &text)) break;
    blocks.push_back(block);
    texts.push_back(text);
  }
  const int64_t found = (first + static_cast<int64_t>(blocks.size())) * kKvBlockTokens;
  if (found <= own) {
    pool_->release(blocks);
    truncate(own);
    return own;
  }
  truncate(first * kKvBlockTokens);
  blocks_.insert(blocks_.end(), blocks.begin(), blocks.end());
  texts_.insert(texts_.end(), texts.begin(), texts.end());
  const auto more = tokens.subspan(tokens_.size(), blocks.size() * kFull);
  tokens_.insert(tokens_.end(), more.begin(), more.end());
  return found;
}

void KvCache::restore(std::span<const int32_t> tokens) {
  require(length() == 0, ErrorCode::internal, "KV cache: restored over {} tokens", length());
  reserve(static_cast<int64_t>(tokens.size()));
  tokens_.assign(tokens.begin(), tokens.end());
  texts_.assign(static_cast<size_t>(full_blocks()), kKvUnknownText);
  restored_ = length();
}

}  // namespace qllm
