// KV blocks as a test can check them: a token's "key and value" is a digest of the whole text up to
// it, so that a block in a place where it does not belong shows.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/kv_cache.h"
#include "backend/kv_storage.h"

namespace qllm::test {

class DigestStorage final : public KvStorage {
 public:
  explicit DigestStorage(int64_t blocks) : rows_(static_cast<size_t>(blocks * kKvBlockTokens)) {}
  uint64_t& row(int32_t block, int64_t row) {
    return rows_[static_cast<size_t>(block * kKvBlockTokens + row)];
  }

  int64_t block_bytes() const override { return kKvBlockTokens * 8; }
  std::string layout() const override { return "digests"; }
  void open(int32_t block, bool fresh) override {
    ++opened;
    if (!fresh) std::memset(&row(block, 0), 0, static_cast<size_t>(block_bytes()));
  }
  void copy(int32_t from, int32_t to) noexcept override {
    std::memcpy(&row(to, 0), &row(from, 0), static_cast<size_t>(block_bytes()));
  }
  void read(int32_t block, std::span<std::byte> out) const noexcept override {
    std::memcpy(out.data(), &rows_[static_cast<size_t>(block * kKvBlockTokens)],
                static_cast<size_t>(block_bytes()));
  }
  void write(int32_t block, std::span<const std::byte> in) noexcept override {
    std::memcpy(&row(block, 0), in.data(), static_cast<size_t>(block_bytes()));
  }

  std::atomic<int64_t> opened{0};

 private:
  std::vector<uint64_t> rows_;
};

inline std::shared_ptr<KvPool> make_digest_pool(const KvPoolOptions& options) {
  return std::make_shared<KvPool>(std::make_unique<DigestStorage>(options.blocks), KvShape{1, 1, 1},
                                  options);
}

inline uint64_t digest(uint64_t before, int32_t token) {
  const uint64_t h = (before + static_cast<uint64_t>(token) + 1) * 0x9E3779B97F4A7C15U;
  return h ^ (h >> 29U);
}

/// What a plan does: makes room, writes, appends. Throws as reserve().
inline void append(KvCache& kv, std::span<const int32_t> tokens) {
  kv.reserve(static_cast<int64_t>(tokens.size()));
  auto& storage = static_cast<DigestStorage&>(kv.pool().storage());
  uint64_t h = 0;
  for (const int32_t token : kv.tokens()) h = digest(h, token);
  int64_t position = kv.length();
  for (const int32_t token : tokens) {
    h = digest(h, token);
    const int32_t block = kv.blocks()[static_cast<size_t>(position / kKvBlockTokens)];
    storage.row(block, position++ % kKvBlockTokens) = h;
  }
  kv.advance(tokens);
}

/// Whether every row of a sequence is that of its text.
inline bool is_intact(const KvCache& kv) {
  auto& storage = static_cast<DigestStorage&>(kv.pool().storage());
  uint64_t h = 0;
  int64_t position = 0;
  for (const int32_t token : kv.tokens()) {
    h = digest(h, token);
    const int32_t block = kv.blocks()[static_cast<size_t>(position / kKvBlockTokens)];
    if (storage.row(block, position++ % kKvBlockTokens) != h) return false;
  }
  return true;
}

}  // namespace qllm::test
