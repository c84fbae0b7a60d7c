// Who computes which part of a step's attention. Tiles of rows (kernels/attend.h) stand in a line,
// each as long as its work; each worker takes an even piece of the line. Where a cut falls inside a
// tile, its blocks are parted: each worker keeps what it found, and after a barrier those that
// shared the tile merge it, each some of its heads. All layers share one schedule.
//
// A slice of few rows (decode) is one tile of all heads of the team, read block by block and in a
// block head by head, as memory has it: a worker reads long runs of lines. (Head by head, each
// block from a place of its own, one core read 12 instead of 16 GB/s.) One of many rows is a line
// of tiles for each head: a tile reads a block once for 32 rows, and their state fits the L1 cache.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/attention_memory.h"
#include "ops/step.h"

namespace qllm::cpu {

/// Cells [begin, end) of a tile: cell c is block first_block + c / heads, KV head
/// kv_head + c % heads.
struct AttentionPiece {
  int64_t slice = 0;  // index of the sequence
  int64_t kv_head = 0;
  int64_t heads = 1;
  int64_t row0 = 0;
  int64_t rows = 0;
  int64_t first_block = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int first_worker = 0;  // that share the tile
  int last_worker = 0;
  bool whole() const { return first_worker == last_worker; }
  bool same_tile(const AttentionPiece& o) const {
    return slice == o.slice && kv_head == o.kv_head && row0 == o.row0;
  }
};

class AttentionSchedule {
 public:
  /// `window`: tokens seen (0: all). Of the shape, kv_heads is not read.
  AttentionSchedule(const AttentionShape& shape, int64_t window) : shape_(shape), window_(window) {}

  int64_t group() const { return shape_.group; }
  int64_t window() const { return window_; }

  /// The heads of a team are shared out among its workers. Allocates only where a step has more
  /// pieces than any before.
  void build(std::span<const KvSlice> slices, std::span<const KvHeadGroup> teams, int workers);

  /// Of those that others share, at most the first continues a tile, at most the last is continued.
  std::span<const AttentionPiece> pieces(int worker) const {
    return pieces_[static_cast<size_t>(worker)];
  }
  /// Whether any tile is parted, so that a merge must follow.
  bool has_cuts() const { return has_cuts_; }

 private:
  struct Tile {
    AttentionPiece piece;  // whole
    int64_t cell_cost = 0;
    int64_t cost() const { return piece.end * cell_cost; }
  };
  template <typename F>
  void for_each_tile(std::span<const KvSlice> slices, const KvHeadGroup& team, F f) const;
  Tile tile_of(const KvSlice& slice, int64_t row0, int64_t rows, int64_t heads) const;
  void build_team(std::span<const KvSlice> slices, const KvHeadGroup& team);
  void share_out(const Tile& tile, const KvHeadGroup& team, int64_t at, int64_t total);

  AttentionShape shape_;
  int64_t window_;
  bool has_cuts_ = false;
  std::vector<std::vector<AttentionPiece>> pieces_;  // [workers]
};

}  // namespace qllm::cpu
