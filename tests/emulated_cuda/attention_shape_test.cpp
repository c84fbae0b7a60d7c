// How attention is shared out: arithmetic alone.
#include "kernels/attention_shape.h"

#include <doctest/doctest.h>

#include <vector>

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

TEST_CASE("cuda attention: splits cover the blocks that a row sees exactly once") {
  for (const int window : {0, 1, 64, 100}) {
    for (int position = 0; position < 700; position += 3) {
      const TokenRange seen = seen_tokens(position, window);
      CHECK(seen.end == position + 1);
      CHECK(seen.end - seen.first == (window > 0 ? std::min(window, position + 1) : position + 1));
      for (const int splits : {1, 2, 5, 11, 128}) {
        int next = seen.first / 64, used = 0;
        for (int s = 0; s < splits; ++s) {
          const TokenRange blocks = split_blocks(seen, splits, s);
          if (blocks.first >= blocks.end) continue;
          CHECK(s == used);  // the empty ones are the last
          CHECK(blocks.first == next);
          next = blocks.end;
          ++used;
        }
        CHECK(next == position / 64 + 1);
        CHECK(used_splits(seen, splits) == used);
      }
    }
  }
}

TEST_CASE("cuda attention: tiles cover the rows of slices of several tokens exactly once") {
  const std::vector<DeviceSlice> slices = {
      {0, 1, 50, 0}, {1, 2, 0, 1}, {3, 200, 7, 2}, {203, 64, 1000, 6}, {267, 1, 0, 23}};
  for (const int group : {1, 3, 8, 100}) {
    const std::vector<AttentionTile> tiles = attention_tiles(slices, group);
    int64_t n_tokens = 0, rows = 0;
    for (const DeviceSlice& s : slices) n_tokens += s.count;
    CHECK(static_cast<int64_t>(tiles.size()) <= max_attention_tiles(n_tokens, 5, group));
    for (size_t i = 0; i < tiles.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        CHECK((tiles[i].slice != tiles[j].slice || tiles[i].first_row != tiles[j].first_row));
      }
      const DeviceSlice& slice = slices[static_cast<size_t>(tiles[i].slice)];
      CHECK(slice.count > 1);
      CHECK(tiles[i].first_row % kTileRows == 0);
      CHECK(tiles[i].first_row < slice.count * group);
      rows += std::min(kTileRows, slice.count * group - tiles[i].first_row);
    }
    CHECK(rows == int64_t{266} * group);
    CHECK(tiles.front().slice == 3);  // it sees the most
  }
}

TEST_CASE("cuda attention: decode fills the device, and no split is empty by itself") {
  AttentionShape shape;
  shape.kv = {KvFormat::f16, 32, 8, 128};
  shape.n_heads = 32;
  CHECK(decode_splits(shape, 1, 64, 132) == 1);
  CHECK(decode_splits(shape, 1, 65, 132) == 2);
  CHECK(decode_splits(shape, 1, 4096, 132) == 49);  // 3 thread blocks for each of 132, 8 heads
  CHECK(decode_splits(shape, 16, 4096, 132) == 3);
  CHECK(decode_splits(shape, 1000, 4096, 132) == 1);
  CHECK(decode_splits(shape, 1, 1 << 20, 10000) == 128);
  shape.window = 128;  // lies in three blocks at most
  CHECK(decode_splits(shape, 1, 4096, 132) == 3);
  CHECK(decode_workspace_bytes(shape, 4, 1) == 0);
  CHECK(decode_workspace_bytes(shape, 4, 3) == 4 * 32 * 3 * (128 + 2) * 4);
}
