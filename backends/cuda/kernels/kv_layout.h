// How the keys and values of 64 tokens lie on the device. A block of the pool is
// [layer][KV head][K | V | scales]; K and V are tiles of 16 tokens by 16 elements of head_dim
// (padded with zeros), those of 16 tokens one after the other. A tile holds what the 32 lanes of a
// warp need for two tensor-core products (mma .m16n8k16, device.h), lane by lane, so that attention
// loads it as it lies, from memory or from shared memory: 16 neighbouring bytes a lane, int8 8, all
// of a warp's without a gap. docs/cuda.md has the equations with their why.
//
// With e bytes an element, from the begin of K or of V:
//   tile      (t/16) * tiles + d/16                                  tiles = padded head_dim / 16
//   K in it   e * ((t%8) * 32 + (d%16/4) * 8 + (t/8%2) * 4 + d%4)
//   V in it   e * ((d%8) * 32 + (t%8/2) * 8 + (d/8%2) * 4 + (t/8%2) * 2 + t%2)
//   scales    int8 only: float of K [64], float of V [64] (quant/int8.h)
//
// Attention multiplies values of tokens that a row does not see by zero, and padded elements of
// keys by those of the query, which are zero. So **a block never holds a number that is infinite or
// NaN**, whatever tokens it holds or held.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backend/kv_format.h"

namespace qllm::cuda {

inline constexpr int kKvTile = 16;
/// The largest head: what the kernels have registers and shared memory for.
inline constexpr int kKvMaxHeadDim = 512;

struct KvGeometry {
  KvFormat format = KvFormat::f16;
  int32_t n_layers = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;

  __host__ __device__ constexpr bool is_int8() const { return format == KvFormat::int8; }
  __host__ __device__ constexpr int element_bytes() const { return is_int8() ? 1 : 2; }
  /// Tiles of 16 tokens.
  __host__ __device__ constexpr int tiles() const { return (head_dim + kKvTile - 1) / kKvTile; }
  __host__ __device__ constexpr int padded() const { return tiles() * kKvTile; }
  __host__ __device__ constexpr int tile_bytes() const {
    return kKvTile * kKvTile * element_bytes();
  }
  /// Of K, and as many of V, of one (block, layer, KV head).
  __host__ __device__ constexpr int part_bytes() const {
    return static_cast<int>(kKvBlockTokens) * padded() * element_bytes();
  }
  /// Of K, V and scales of one (block, layer, KV head); a multiple of 512.
  __host__ __device__ constexpr int head_bytes() const {
    return 2 * part_bytes() + (is_int8() ? 2 * static_cast<int>(kKvBlockTokens) * 4 : 0);
  }
  /// Where a head begins in its block.
  __host__ __device__ constexpr int64_t head_offset(int64_t layer, int64_t kv_head) const {
    return (layer * n_kv_heads + kv_head) * head_bytes();
  }
  __host__ __device__ constexpr int64_t block_bytes() const { return head_offset(n_layers, 0); }

  /// Where element d of token t of the block begins, from the begin of the head.
  __host__ __device__ constexpr int k_offset(int t, int d) const {
    const int in_tile = t % 8 * 32 + d % 16 / 4 * 8 + t / 8 % 2 * 4 + d % 4;
    return (t / kKvTile * tiles() + d / kKvTile) * tile_bytes() + in_tile * element_bytes();
  }
  __host__ __device__ constexpr int v_offset(int t, int d) const {
    const int in_tile = d % 8 * 32 + t % 8 / 2 * 8 + d / 8 % 2 * 4 + t / 8 % 2 * 2 + t % 2;
    return part_bytes() + (t / kKvTile * tiles() + d / kKvTile) * tile_bytes() +
           in_tile * element_bytes();
  }
  /// Where the scale of token t for K (value = false) or V begins. int8 only.
  __host__ __device__ constexpr int scale_offset(int t, bool value) const {
    return 2 * part_bytes() + (value ? static_cast<int>(kKvBlockTokens) * 4 : 0) + t * 4;
  }

  /// Keys that are to be quantized are first turned by a normalised Hadamard matrix in blocks of
  /// 64, and queries alike, as on the cpu.
  __host__ __device__ constexpr bool turns_keys() const { return is_int8() && head_dim % 64 == 0; }

  friend constexpr bool operator==(const KvGeometry&, const KvGeometry&) = default;
};

}  // namespace qllm::cuda
