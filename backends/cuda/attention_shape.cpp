#include "kernels/attention_shape.h"

#include <algorithm>

#include "core/math.h"

namespace qllm::cuda {
namespace {

// A split beyond these costs the combining more than it gains the reading.
constexpr int64_t kMaxSplits = 128;

// Thread blocks of the decode kernel that a multiprocessor holds at once: what their registers
// leave room for (attention_decode.cu).
int64_t resident_blocks(const KvGeometry& kv) {
  if (kv.tiles() <= 4) return 4;
  return kv.tiles() <= 8 ? 3 : 2;
}

int64_t row_tiles(const AttentionShape& shape) {
  return ceil_div(int64_t{shape.heads_of_kv()}, int64_t{kAttentionRows});
}

}  // namespace

std::vector<AttentionTile> attention_tiles(std::span<const DeviceSlice> slices, int heads_of_kv) {
  std::vector<AttentionTile> tiles;
  for (size_t s = 0; s < slices.size(); ++s) {
    if (slices[s].count < 2) continue;
    for (int row = 0; row < slices[s].count * heads_of_kv; row += kTileRows) {
      tiles.push_back({static_cast<int32_t>(s), row});
    }
  }
  const auto seen = [&](const AttentionTile& tile) {
    const DeviceSlice& slice = slices[static_cast<size_t>(tile.slice)];
    const int token = (tile.first_row + kTileRows - 1) / heads_of_kv;
    return slice.length + std::min(token, slice.count - 1);
  };
  std::stable_sort(tiles.begin(), tiles.end(), [&](const AttentionTile& a, const AttentionTile& b) {
    return seen(a) > seen(b);
  });
  return tiles;
}

int64_t max_attention_tiles(int64_t n_tokens, int64_t n_slices, int heads_of_kv) {
  // Each slice has one that is not full at most.
  return n_tokens * heads_of_kv / kTileRows + std::min(n_slices, n_tokens / 2);
}

int decode_splits(const AttentionShape& shape, int64_t n_slices, int64_t max_length,
                  int multiprocessors) {
  const int64_t seen = shape.window > 0 ? std::min<int64_t>(max_length, shape.window) : max_length;
  // A window may begin in the middle of a block.
  const int64_t blocks = ceil_div(seen, kKvBlockTokens) + (seen < max_length ? 1 : 0);
  const int64_t whole = std::max<int64_t>(1, n_slices * shape.kv.n_kv_heads * row_tiles(shape));
  const int64_t wanted = resident_blocks(shape.kv) * multiprocessors / whole;
  return static_cast<int>(
      std::clamp<int64_t>(wanted, 1, std::clamp<int64_t>(blocks, 1, kMaxSplits)));
}

int64_t decode_workspace_bytes(const AttentionShape& shape, int64_t n_slices, int splits) {
  if (splits <= 1) return 0;
  // Sums of all elements of a head, their largest score and their weight.
  return n_slices * shape.n_heads * splits * (int64_t{shape.kv.padded()} + 2) *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace qllm::cuda
