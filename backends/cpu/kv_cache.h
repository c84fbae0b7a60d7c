// Keys and values of one sequence as bf16: [layer][kv_head][token][head_dim], so that one head's
// tokens are read in order.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "placed_memory.h"

namespace qllm::cpu {

class CpuKvCache final : public KvCache {
 public:
  CpuKvCache(const KvShape& shape, bool large_pages);

  uint16_t* k(int64_t layer, int64_t head, int64_t token) const {
    return k_.as<uint16_t>() + offset(layer, head, token);
  }
  uint16_t* v(int64_t layer, int64_t head, int64_t token) const {
    return v_.as<uint16_t>() + offset(layer, head, token);
  }
  int64_t bytes() const override { return static_cast<int64_t>(k_.bytes() + v_.bytes()); }

 private:
  int64_t offset(int64_t layer, int64_t head, int64_t token) const {
    return ((layer * shape().n_kv_heads + head) * capacity() + token) * shape().head_dim;
  }
  PlacedBuffer k_;
  PlacedBuffer v_;
};

}  // namespace qllm::cpu
