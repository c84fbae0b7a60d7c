#include "kv_cache.h"

#include "core/error.h"
#include "core/math.h"

namespace qllm::cpu {
namespace {

PlacedBuffer allocate(const KvShape& s, bool large_pages) {
  uint64_t bytes = sizeof(uint16_t);
  for (int64_t factor : {s.n_layers, s.n_kv_heads, s.head_dim, s.capacity}) {
    require(factor > 0 && checked_mul(bytes, static_cast<uint64_t>(factor), &bytes),
            ErrorCode::invalid_argument,
            "KV cache: {} layers x {} heads x {} x {} tokens is no size", s.n_layers, s.n_kv_heads,
            s.head_dim, s.capacity);
  }
  PlacementOptions options;
  options.large_pages = large_pages;
  return {bytes, options};
}

}  // namespace

CpuKvCache::CpuKvCache(const KvShape& shape, bool large_pages)
    : KvCache(shape), k_(allocate(shape, large_pages)), v_(allocate(shape, large_pages)) {}

}  // namespace qllm::cpu
