// What both attention kernels are told, and how they share out their work: pure arithmetic.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_layout.h"
#include "step_tables.h"

namespace qllm::cuda {

/// As AttentionOp (graph.h). Query heads [h * heads_of_kv(), (h + 1) * heads_of_kv()) read KV head
/// h together: "rows" of a KV head are the heads of its first token, then those of its second, ...
struct AttentionShape {
  KvGeometry kv;
  int32_t layer = 0;
  int32_t n_heads = 0;
  float scale = 1.0F;
  int32_t window = 0;  // 0: all
  float softcap = 0.0F;

  __host__ __device__ constexpr int heads_of_kv() const { return n_heads / kv.n_kv_heads; }
};

/// Rows that a warp takes: the tensor cores' 16.
inline constexpr int kAttentionRows = 16;
/// Rows of a prefill tile: four warps'.
inline constexpr int kTileRows = 64;

/// A thread block's rows of a slice: [first_row, first_row + kTileRows) as far as there are any.
struct AttentionTile {
  int32_t slice = 0;
  int32_t first_row = 0;
};

/// Tiles that cover all rows of all slices of more than one token, those that see the most tokens
/// first: they take the longest.
std::vector<AttentionTile> attention_tiles(std::span<const DeviceSlice> slices, int heads_of_kv);

/// An upper bound of what attention_tiles returns, for `n_tokens` in `n_slices`.
int64_t max_attention_tiles(int64_t n_tokens, int64_t n_slices, int heads_of_kv);

/// In how many parts the sequences are read in decode, so that the device is filled. `max_length`
/// is the longest sequence that may come, the step's token included.
int decode_splits(const AttentionShape& shape, int64_t n_slices, int64_t max_length,
                  int multiprocessors);

/// Of the workspace that attention_decode needs; 0 for one split.
int64_t decode_workspace_bytes(const AttentionShape& shape, int64_t n_slices, int splits);

/// Tokens [first, end) that a row at `position` sees.
struct TokenRange {
  int first = 0;
  int end = 0;
};
__host__ __device__ constexpr TokenRange seen_tokens(int position, int window) {
  const int first = window > 0 && position + 1 > window ? position + 1 - window : 0;
  return {first, position + 1};
}

/// The blocks of a range that split `split` of `splits` reads: [first, end), empty for those behind
/// the last. All but the last take equally many.
__host__ __device__ constexpr TokenRange split_blocks(TokenRange tokens, int splits, int split) {
  constexpr int kBlock = static_cast<int>(kKvBlockTokens);
  const int first = tokens.first / kBlock, end = (tokens.end + kBlock - 1) / kBlock;
  const int each = (end - first + splits - 1) / splits;
  const int begin = first + split * each;
  return {begin < end ? begin : end, begin + each < end ? begin + each : end};
}
/// Splits that read anything: [0, used_splits).
__host__ __device__ constexpr int used_splits(TokenRange tokens, int splits) {
  constexpr int kBlock = static_cast<int>(kKvBlockTokens);
  const int blocks = (tokens.end + kBlock - 1) / kBlock - tokens.first / kBlock;
  const int each = (blocks + splits - 1) / splits;
  return (blocks + each - 1) / each;
}

}  // namespace qllm::cuda
