// One worker's part of a step's attention, wherever the blocks lie: what the step and
// bench/attention share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attend.h"
#include "ops/attention_memory.h"
#include "ops/attention_schedule.h"

namespace qllm::cpu {

/// q and out are [tokens, KV heads, group, head_dim] with rows ldq and ldout floats apart.
struct AttentionCall {
  const AttentionSchedule* schedule = nullptr;
  const AttendKernels* kernels = nullptr;
  std::span<const KvSlice> slices;
  const Scratch* scratch = nullptr;  // AttentionMemory of each worker
  const float* q = nullptr;
  float* out = nullptr;
  int64_t ldq = 0;
  int64_t ldout = 0;
  AttentionShape shape;
  float scale = 1.0F;
  float softcap = 0.0F;

  AttentionMemory memory(int worker) const noexcept {
    return {scratch->of<std::byte>(worker), shape};
  }
  /// But for what select() sets.
  AttendTile tile(const AttentionPiece& piece) const noexcept {
    AttendTile t;
    t.ldq = ldq;
    t.ldout = ldout;
    t.group = shape.group;
    t.row0 = piece.row0;
    t.rows = piece.rows;
    t.head_dim = shape.head_dim;
    t.position = slices[static_cast<size_t>(piece.slice)].past;
    t.window = schedule->window();
    t.scale = scale;
    t.softcap = softcap;
    return t;
  }
  /// Of the heads of a piece, the one that a tile is about, as a worker has it. A worker has at
  /// most one piece that others began, and one that others go on with.
  void select(const AttentionPiece& piece, int worker, int64_t head, AttendTile* t) const noexcept {
    const int64_t first = slices[static_cast<size_t>(piece.slice)].first;
    const int64_t column = (piece.kv_head + head) * shape.group * shape.head_dim;
    t->q = q + first * ldq + column;
    t->out = out + first * ldout + column;
    const int64_t slot = piece.whole() ? 0 : piece.first_worker < worker ? 1 : 2;
    memory(worker).place(slot, head, t);
  }
};

/// All pieces of a worker. block_of(slice, KV head, block) gives where a block begins.
template <typename BlockOf>
void attend_pieces(const AttentionCall& call, int worker, const BlockOf& block_of) noexcept {
  for (const AttentionPiece& piece : call.schedule->pieces(worker)) {
    AttendTile tile = call.tile(piece);
    for (int64_t head = 0; head < piece.heads; ++head) {
      call.select(piece, worker, head, &tile);
      call.kernels->begin(tile);
    }
    const auto cell_at = [&](int64_t block, int64_t head) {
      return block_of(piece.slice, piece.kv_head + head, block);
    };
    int64_t block = piece.first_block + piece.begin / piece.heads;
    int64_t head = piece.begin % piece.heads;
    const std::byte* at = cell_at(block, head);
    for (int64_t cell = piece.begin; cell < piece.end; ++cell) {
      if (piece.heads > 1) call.select(piece, worker, head, &tile);
      const int64_t first = block * kKvBlockTokens;
      if (++head == piece.heads) head = 0, ++block;
      const std::byte* next = cell + 1 < piece.end ? cell_at(block, head) : nullptr;
      call.kernels->block(tile, at, next, first);
      at = next;
    }
    if (!piece.whole()) continue;
    for (int64_t h = 0; h < piece.heads; ++h) {
      call.select(piece, worker, h, &tile);
      call.kernels->finish(tile);
    }
  }
}

/// Merges and finishes this worker's share of the heads of a piece that others share.
inline void merge_piece(const AttentionCall& call, int worker,
                        const AttentionPiece& piece) noexcept {
  const auto of_worker = [&](int w) -> const AttentionPiece* {
    for (const AttentionPiece& p : call.schedule->pieces(w)) {
      if (!p.whole() && p.same_tile(piece)) return &p;
    }
    return nullptr;  // the worker's share of the line is empty here
  };
  int sharers = 0, own = 0;
  for (int w = piece.first_worker; w <= piece.last_worker; ++w) {
    if (of_worker(w) == nullptr) continue;
    if (w == worker) own = sharers;
    ++sharers;
  }
  AttendTile tile = call.tile(piece);
  AttendTile theirs = tile;
  for (int64_t head = own; head < piece.heads; head += sharers) {
    call.select(piece, worker, head, &tile);
    for (int w = piece.first_worker; w <= piece.last_worker; ++w) {
      const AttentionPiece* other = w == worker ? nullptr : of_worker(w);
      if (other == nullptr) continue;
      call.select(*other, w, head, &theirs);
      call.kernels->merge(tile, theirs.partial);
    }
    call.kernels->finish(tile);
  }
}

/// Behind a barrier, where the schedule has cuts.
inline void merge_pieces(const AttentionCall& call, int worker) noexcept {
  for (const AttentionPiece& piece : call.schedule->pieces(worker)) {
    if (!piece.whole()) merge_piece(call, worker, piece);
  }
}

}  // namespace qllm::cpu
