#include "ops/attention_schedule.h"

#include <algorithm>
#include <numeric>

namespace qllm::cpu {
namespace {

/// Of a block, in rows: reading it takes as long as some rows of arithmetic do (measured: four).
constexpr int64_t kReadCost = 4;

}  // namespace

AttentionSchedule::Tile AttentionSchedule::tile_of(const KvSlice& slice, int64_t row0, int64_t rows,
                                                   int64_t heads) const {
  const int64_t first_token = slice.past + row0 / shape_.group;
  const int64_t last_token = slice.past + (row0 + rows - 1) / shape_.group;
  const int64_t seen = window_ > 0 ? std::max<int64_t>(0, first_token + 1 - window_) : 0;
  Tile tile;
  tile.piece.row0 = row0;
  tile.piece.rows = rows;
  tile.piece.heads = heads;
  tile.piece.first_block = seen / kKvBlockTokens;
  tile.piece.end = (last_token / kKvBlockTokens + 1 - tile.piece.first_block) * heads;
  tile.cell_cost = std::max(rows, kReadCost);
  return tile;
}

template <typename F>
void AttentionSchedule::for_each_tile(std::span<const KvSlice> slices, const KvHeadGroup& team,
                                      F f) const {
  for (size_t s = 0; s < slices.size(); ++s) {
    const int64_t rows = slices[s].count * shape_.group;
    const int64_t heads = rows <= shape_.few_rows() ? team.n_heads : 1;  // side by side
    const int64_t tiles = ceil_div(rows, kAttendRows);
    for (int64_t head = 0; head < team.n_heads; head += heads) {
      for (int64_t i = 0; i < tiles; ++i) {  // of nearly equal size
        const int64_t row0 = rows * i / tiles;
        Tile tile = tile_of(slices[s], row0, rows * (i + 1) / tiles - row0, heads);
        tile.piece.slice = static_cast<int64_t>(s);
        tile.piece.kv_head = team.first_head + head;
        f(tile);
      }
    }
  }
}

void AttentionSchedule::share_out(const Tile& tile, const KvHeadGroup& team, int64_t at,
                                  int64_t total) {
  AttentionPiece piece = tile.piece;
  if (piece.rows > shape_.few_rows()) {
    // Uncut, so that a token's sums do not depend on the tokens beside it in the step: a prompt
    // gives the same text however it is cut into steps, and whatever of it was known.
    const int64_t w = (2 * at + tile.cost()) * team.n_workers / (2 * total);
    piece.first_worker = piece.last_worker = team.first_worker + static_cast<int>(w);
    pieces_[static_cast<size_t>(piece.first_worker)].push_back(piece);
    return;
  }
  piece.first_worker = -1;
  // The first worker whose share ends behind the tile's begin.
  for (int64_t w = at * team.n_workers / total; piece.begin < tile.piece.end; ++w) {
    const int64_t share_end = total * (w + 1) / team.n_workers - at;
    const int64_t cut = (share_end + tile.cell_cost / 2) / tile.cell_cost;
    piece.end = w + 1 == team.n_workers ? tile.piece.end : std::min(cut, tile.piece.end);
    if (piece.end <= piece.begin) continue;
    const int worker = team.first_worker + static_cast<int>(w);
    if (piece.first_worker < 0) piece.first_worker = worker;
    piece.last_worker = worker;
    pieces_[static_cast<size_t>(worker)].push_back(piece);
    piece.begin = piece.end;
  }
  if (piece.whole()) return;
  has_cuts_ = true;
  for (int w = piece.first_worker; w < piece.last_worker; ++w) {
    auto& own = pieces_[static_cast<size_t>(w)];
    if (!own.empty() && own.back().same_tile(piece)) own.back().last_worker = piece.last_worker;
  }
}

void AttentionSchedule::build_team(std::span<const KvSlice> slices, const KvHeadGroup& team) {
  int64_t total = 0;
  for_each_tile(slices, team, [&](const Tile& tile) { total += tile.cost(); });
  int64_t at = 0;
  for_each_tile(slices, team, [&](const Tile& tile) {
    share_out(tile, team, at, total);
    at += tile.cost();
  });
}

void AttentionSchedule::build(std::span<const KvSlice> slices, std::span<const KvHeadGroup> teams,
                              int workers) {
  pieces_.resize(static_cast<size_t>(workers));
  for (auto& own : pieces_) own.clear();
  has_cuts_ = false;
  for (const KvHeadGroup& team : teams) {
    // As many teams as heads and workers divide into: the fewest tiles are cut.
    const auto parts = static_cast<int>(std::gcd(team.n_heads, int64_t{team.n_workers}));
    const int64_t heads = team.n_heads / parts;
    const int n_workers = team.n_workers / parts;
    for (int i = 0; i < parts; ++i) {
      build_team(slices, {team.first_head + i * heads, heads, team.first_worker + i * n_workers,
                          n_workers});
    }
  }
}

}  // namespace qllm::cpu
