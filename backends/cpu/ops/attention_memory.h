// The memory that a worker's tiles of attention take (kernels/attend.h), carved from its scratch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/math.h"
#include "kernels/attend.h"
#include "kv_layout.h"

namespace qllm::cpu {

struct AttentionShape {
  int64_t head_dim = 0;
  int64_t group = 1;     // query heads of a KV head
  int64_t kv_heads = 1;  // the most that a worker goes through side by side

  /// Slices of no more rows are read block by block, all heads of a block, as they lie.
  int64_t few_rows() const { return std::min(kAttendRows, std::max<int64_t>(group, 8)); }
};

class AttentionMemory {
 public:
  /// Room for a tile that this worker begins and finishes, one that others began, one that others
  /// go on with.
  static constexpr int64_t kSlots = 3;

  static int64_t bytes(const AttentionShape& shape) {
    return (kScratchWords + kSlots * slot_words(shape)) * 4;
  }

  /// `base` has bytes(shape), aligned to 64.
  AttentionMemory(std::byte* base, const AttentionShape& shape)
      : width_(kv_head_dim_padded(shape.head_dim)), slot_words_(slot_words(shape)), base_(base) {}

  /// Gives a tile, whose rows are set, the scratch of all tiles and what belongs to its head, one
  /// of several side by side.
  void place(int64_t slot, int64_t head, AttendTile* tile) const {
    auto* at = reinterpret_cast<float*>(base_);
    AttendScratch& s = tile->scratch;
    s.weights = reinterpret_cast<uint32_t*>(take(&at, kAttendRows * kKvBlockTokens / 2));
    s.scores = take(&at, kAttendRows * kKvBlockTokens);
    s.top = take(&at, kAttendRows);
    s.sum = take(&at, kAttendRows);
    s.weight_scale = take(&at, kAttendRows);
    s.factor = take(&at, kAttendRows);
    s.v_scale = take(&at, kKvBlockTokens);
    at += slot * slot_words_ + head * head_words(tile->rows, width_);
    const int64_t rows = round_up(tile->rows, kKvLanes);
    s.q = reinterpret_cast<uint32_t*>(take(&at, tile->rows * width_));
    tile->partial.acc = take(&at, tile->rows * width_);
    tile->partial.max = take(&at, rows);
    tile->partial.sum = take(&at, rows);
    s.q_scale = take(&at, rows);
  }

 private:
  static constexpr int64_t kScratchWords =
      kAttendRows * (kKvBlockTokens / 2 + kKvBlockTokens + 4) + kKvBlockTokens;

  static int64_t head_words(int64_t rows, int64_t width) {
    return 2 * rows * width + 3 * round_up(rows, kKvLanes);
  }
  static int64_t slot_words(const AttentionShape& shape) {
    const int64_t width = kv_head_dim_padded(shape.head_dim);
    return std::max(head_words(kAttendRows, width),
                    shape.kv_heads * head_words(shape.few_rows(), width));
  }
  static float* take(float** at, int64_t words) {
    float* p = *at;
    *at += words;
    return p;
  }

  int64_t width_;
  int64_t slot_words_;
  std::byte* base_;
};

}  // namespace qllm::cpu
