// A thread block takes 64 rows of a KV head, each of its four warps 16, whose queries stay in
// registers as operands. Keys and values come through shared memory, some strips of 16 tokens at a
// time ("a stage"), the next while one is worked on; there they lie as they lie in memory, so
// copies are straight and a warp reads 512 bytes without a gap.
//
// Elements of a head are 16 a step. kSteps: the most there are; kExact: as many as there are. A
// thread block makes at most 128 elements of the outputs; the others of a head are made by a thread
// block of their own, which computes the scores once more.
#include "kernels/attention_decode.h"
#include "kernels/attention_prefill.h"
#include "kernels/attention_warp.h"
#include "kernels/device_half.h"

namespace qllm::cuda {
namespace {

constexpr int kWarps = kTileRows / kAttentionRows;
constexpr int kThreads = kWarps * kWarp;
constexpr int kBlockTokens = static_cast<int>(kKvBlockTokens);
constexpr int kChunk = 16;  // bytes of a copy

struct Task {
  AttentionShape shape;
  FloatRows q, out;
  StepTables tables;
  const AttentionTile* tiles;
};

/// What a stage takes of shared memory.
template <KvFormat kFormat, int kSteps>
struct Stage {
  static constexpr int kOut = kSteps < 8 ? kSteps : 8;
  /// Strips of a stage: 16 KiB of f16, as scores take registers.
  static constexpr int kStrips = kSteps <= 4 ? 4 : (kSteps <= 8 ? 2 : 1);
  static constexpr int kTokens = kStrips * kKvTile;
  static constexpr int kTile = kTileBytes<kFormat>;
  static constexpr int kKeys = kStrips * kSteps * kTile;
  static constexpr int kValues = kStrips * kOut * kTile;
  static constexpr int kScales = kFormat == KvFormat::int8 ? kTokens * 4 : 0;  // of each
  static constexpr int kBytes = kKeys + kValues + 2 * kScales;
  static constexpr int kShared = 2 * kBytes;
};

/// What a thread block works on.
struct Place {
  DeviceSlice slice;
  int kv_head, part, first_row;
  TokenRange seen;  // by any of its rows

  __device__ explicit Place(const Task& task) {
    const AttentionShape& shape = task.shape;
    const AttentionTile tile = task.tiles[blockIdx.x];
    slice = task.tables.slices[tile.slice];
    kv_head = static_cast<int>(blockIdx.y) % shape.kv.n_kv_heads;
    part = static_cast<int>(blockIdx.y) / shape.kv.n_kv_heads;
    first_row = tile.first_row;
    const int group = shape.heads_of_kv();
    const int end_row = min(first_row + kTileRows, slice.count * group);
    seen = {seen_tokens(slice.length + first_row / group, shape.window).first,
            slice.length + (end_row - 1) / group + 1};
  }
};

__device__ void copy_chunks(std::byte* to, const std::byte* from, int bytes) {
  for (int i = static_cast<int>(threadIdx.x) * kChunk; i < bytes; i += kThreads * kChunk) {
    copy_async16(to + i, from + i);
  }
}

/// Begins to copy the tokens from `first` on, as many as a stage has.
template <KvFormat kFormat, int kSteps>
__device__ void copy_stage(const Task& task, const Place& place, int first, std::byte* to) {
  using S = Stage<kFormat, kSteps>;
  const KvGeometry& kv = task.shape.kv;
  const std::byte* head = task.tables.blocks[place.slice.first_block + first / kBlockTokens] +
                          kv.head_offset(task.shape.layer, place.kv_head);
  const int strip = first % kBlockTokens / kKvTile, strip_bytes = kv.tiles() * S::kTile;
  const std::byte* k = head + strip * strip_bytes;
  const std::byte* v = k + kv.part_bytes() + place.part * S::kOut * S::kTile;
  copy_chunks(to, k, S::kStrips * strip_bytes);
  const int outs = min(S::kOut, kv.tiles() - place.part * S::kOut);
  for (int i = 0; i < S::kStrips; ++i) {
    copy_chunks(to + S::kKeys + i * S::kOut * S::kTile, v + i * strip_bytes, outs * S::kTile);
  }
  if constexpr (kFormat == KvFormat::int8) {
    std::byte* scales = to + S::kKeys + S::kValues;
    copy_chunks(scales, head + kv.scale_offset(first % kBlockTokens, false), S::kScales);
    copy_chunks(scales + S::kScales, head + kv.scale_offset(first % kBlockTokens, true),
                S::kScales);
  }
}

/// A warp's 16 rows.
template <KvFormat kFormat, int kSteps, bool kExact>
struct WarpRows {
  using S = Stage<kFormat, kSteps>;
  Terms q[kSteps];
  float out[S::kOut][2][4] = {};
  Softmax softmax;

  __device__ WarpRows(const LaneRows& rows, const KvGeometry& kv, int lane) {
#pragma unroll
    for (int c = 0; c < kSteps; ++c) {
      if (kExact || c < kv.tiles()) q[c] = rows.terms<kFormat>(c, kv.head_dim, lane);
    }
  }

  /// One stage in shared memory, whose first token is `first`.
  __device__ void add(const LaneRows& rows, const KvGeometry& kv, const std::byte* stage, int first,
                      bool all_seen, int outs, int lane) {
    const int tiles = kExact ? kSteps : kv.tiles();
    const auto* scales = reinterpret_cast<const float*>(stage + S::kKeys + S::kValues);
    float s[S::kStrips][2][4] = {};
#pragma unroll
    for (int c = 0; c < kSteps; ++c) {
      if (!kExact && c >= tiles) continue;
#pragma unroll
      for (int i = 0; i < S::kStrips; ++i) {
        multiply_tile<kFormat>(s[i], q[c], operands(stage + (i * tiles + c) * S::kTile, lane).b);
      }
    }
    float fade[2];
    finish_scores<kFormat>(s, rows, first, scales, all_seen, lane);
    softmax.weigh(s, fade);
    const WeightTerms<kFormat, S::kStrips> weights(s, scales + S::kTokens, lane);
#pragma unroll
    for (int o = 0; o < S::kOut; ++o) {
      if (!kExact && o >= outs) continue;
      OutputTile<kFormat> to(out[o], fade);
#pragma unroll
      for (int i = 0; i < S::kStrips; ++i) {
        LaneTile<kFormat> values;
        values.load(stage + S::kKeys + (i * S::kOut + o) * S::kTile, lane);
        to.add(weights.terms[i], values);
      }
      to.finish(weights.unit);
    }
  }

  __device__ void store(const Task& task, const LaneRows& rows, int part, int lane) const {
    const int head_dim = task.shape.kv.head_dim;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float factor = 1.0F / quad_sum(softmax.weight[r]);
      if (!rows.used[r]) continue;
      float* to = task.out.data + rows.token[r] * task.out.ld +
                  static_cast<int64_t>(rows.head[r]) * head_dim;
#pragma unroll
      for (int i = 0; i < S::kOut * 2; ++i) {
        const int d = (part * S::kOut * 2 + i) * 8 + lane % 4 * 2;
        if (d < head_dim) to[d] = factor * out[i / 2][i % 2][2 * r];
        if (d + 1 < head_dim) to[d + 1] = factor * out[i / 2][i % 2][2 * r + 1];
      }
    }
  }

 private:
  struct Operands {
    unsigned b[2][2];
  };
  __device__ static Operands operands(const std::byte* tile, int lane) {
    LaneTile<kFormat> keys;
    keys.load(tile, lane);
    Operands out;
    keys.operands(out.b);
    return out;
  }
};

/// What a warp's rows see: of any of them, and of all.
struct WarpView {
  TokenRange any, all;

  __device__ WarpView(const AttentionShape& shape, const Place& place, int first_row) {
    const int group = shape.heads_of_kv(), rows = place.slice.count * group;
    if (first_row >= rows) return;
    const int last_row = min(first_row + kAttentionRows, rows) - 1;
    const TokenRange early = seen_tokens(place.slice.length + first_row / group, shape.window);
    const TokenRange late = seen_tokens(place.slice.length + last_row / group, shape.window);
    any = {early.first, late.end};
    all = {late.first, early.end};
  }
  __device__ bool sees(int first, int tokens) const {
    return first < any.end && first + tokens > any.first;
  }
  __device__ bool sees_all(int first, int tokens) const {
    return first >= all.first && first + tokens <= all.end;
  }
};

template <KvFormat kFormat, int kSteps, bool kExact>
__global__ void __launch_bounds__(kThreads, 2) attend_tile(Task task) {
  using S = Stage<kFormat, kSteps>;
  wait_for_previous();
  const Place place(task);
  const KvGeometry& kv = task.shape.kv;
  auto* const memory = dynamic_shared<std::byte>();
  const int begin = place.seen.first / S::kTokens * S::kTokens;
  copy_stage<kFormat, kSteps>(task, place, begin, memory);
  copy_async_commit();

  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_row = place.first_row + static_cast<int>(threadIdx.x) / kWarp * kAttentionRows;
  const LaneRows rows(task.shape, task.q, place.slice, place.kv_head, first_row, lane);
  const WarpView view(task.shape, place, first_row);
  WarpRows<kFormat, kSteps, kExact> warp(rows, kv, lane);
  const int outs = min(S::kOut, kv.tiles() - place.part * S::kOut);
  for (int first = begin, buffer = 0; first < place.seen.end; first += S::kTokens, buffer ^= 1) {
    const int next = first + S::kTokens;
    if (next < place.seen.end) {
      copy_stage<kFormat, kSteps>(task, place, next, memory + (buffer ^ 1) * S::kBytes);
    }
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();  // what all threads copied is there
    if (view.sees(first, S::kTokens)) {
      warp.add(rows, kv, memory + buffer * S::kBytes, first, view.sees_all(first, S::kTokens), outs,
               lane);
    }
    __syncthreads();  // the buffer may be written again
  }
  warp.store(task, rows, place.part, lane);
}

template <KvFormat kFormat, int kSteps, bool kExact>
void launch_tiles(const Task& task, int64_t n_tiles, cudaStream_t stream) {
  using S = Stage<kFormat, kSteps>;
  const int parts = (task.shape.kv.tiles() + S::kOut - 1) / S::kOut;
  const LaunchShape shape{
      dim3(static_cast<unsigned>(n_tiles), static_cast<unsigned>(task.shape.kv.n_kv_heads * parts)),
      kThreads, static_cast<size_t>(S::kShared)};
  launch("attention of tiles", attend_tile<kFormat, kSteps, kExact>, shape, stream, true, task);
}

template <KvFormat kFormat>
void launch_format(const Task& task, int64_t n_tiles, cudaStream_t stream) {
  const int tiles = task.shape.kv.tiles();
  if (tiles == 4) return launch_tiles<kFormat, 4, true>(task, n_tiles, stream);
  if (tiles == 8) return launch_tiles<kFormat, 8, true>(task, n_tiles, stream);
  if (tiles < 8) return launch_tiles<kFormat, 8, false>(task, n_tiles, stream);
  launch_tiles<kFormat, 16, false>(task, n_tiles, stream);
}

template <KvFormat kFormat>
int shared_bytes(int tiles) {
  if (tiles > 16) return 0;
  if (tiles == 4) return Stage<kFormat, 4>::kShared;
  return tiles <= 8 ? Stage<kFormat, 8>::kShared : Stage<kFormat, 16>::kShared;
}

}  // namespace

int prefill_shared_bytes(const KvGeometry& kv) {
  return kv.is_int8() ? shared_bytes<KvFormat::int8>(kv.tiles())
                      : shared_bytes<KvFormat::f16>(kv.tiles());
}

void attention_prefill(const AttentionShape& shape, const FloatRows& q, const FloatRows& out,
                       const StepTables& tables, const AttentionTile* tiles, int64_t n_tiles,
                       cudaStream_t stream) {
  if (n_tiles == 0) return;
  if (prefill_shared_bytes(shape.kv) == 0) {
    return attention_of_tiles(shape, q, out, tables, tiles, n_tiles, stream);
  }
  const Task task{shape, q, out, tables, tiles};
  switch (shape.kv.format) {
    case KvFormat::bf16:
      return launch_format<KvFormat::bf16>(task, n_tiles, stream);
    case KvFormat::int8:
      return launch_format<KvFormat::int8>(task, n_tiles, stream);
    case KvFormat::f16:
      return launch_format<KvFormat::f16>(task, n_tiles, stream);
  }
}

}  // namespace qllm::cuda
