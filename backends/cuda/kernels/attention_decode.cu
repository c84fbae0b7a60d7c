// A thread block takes up to 16 rows of a KV head and a part of its blocks ("split", after
// flash-decoding: crfm.stanford.edu/2023/10/12/flashdecoding.html); each of its four warps takes
// a strip of 16 tokens of every block, straight from memory into registers. Their sums are put
// together in shared memory, those of splits by a second kernel.
//
// Elements of a head are 16 a step. kSteps: the most there are; kExact: as many as there are;
// kOut: outputs that a thread block makes, the others are made by thread blocks of their own, which
// compute the scores once more.
#include "kernels/attention_decode.h"
#include "kernels/attention_warp.h"
#include "kernels/device_half.h"

namespace qllm::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kMaxSplits = 128;  // as decode_splits gives
constexpr int kBlockTokens = static_cast<int>(kKvBlockTokens);

struct Task {
  AttentionShape shape;
  FloatRows q, out;
  StepTables tables;
  const AttentionTile* tiles;  // null: the rows of each slice of one token
  int row_tiles;               // of a slice's head, or of a tile
  int splits;
  float* sums;   // [slice][head][split][padded head_dim]
  float2* tops;  // [slice][head][split]: the largest score as log2, the weight
};

/// What a thread block works on.
struct Place {
  DeviceSlice slice;
  int kv_head, first_row, rows;
  int part;  // of the outputs
  TokenRange seen;
  TokenRange blocks;

  /// False where there is nothing to do.
  __device__ bool find(const Task& task) {
    const AttentionShape& shape = task.shape;
    const auto y = static_cast<int>(blockIdx.y), z = static_cast<int>(blockIdx.z);
    const bool tiled = task.tiles != nullptr;
    const AttentionTile tile = tiled ? task.tiles[z] : AttentionTile{z, 0};
    slice = task.tables.slices[tile.slice];
    if (!tiled && slice.count != 1) return false;
    kv_head = y % shape.kv.n_kv_heads;
    const int group = shape.heads_of_kv(), all = slice.count * group;
    first_row = tile.first_row + y / shape.kv.n_kv_heads % task.row_tiles * kAttentionRows;
    part = y / (shape.kv.n_kv_heads * task.row_tiles);
    if (first_row >= all) return false;
    rows = min(kAttentionRows, all - first_row);
    const int last = (first_row + rows - 1) / group;
    seen = {seen_tokens(slice.length + first_row / group, shape.window).first,
            slice.length + last + 1};
    blocks = split_blocks(seen, task.splits, static_cast<int>(blockIdx.x));
    return blocks.first < blocks.end;
  }
};

/// A warp's sums over its strips. `queries` [steps][2][lanes]: high and low terms of all rows.
template <KvFormat kFormat, int kSteps, bool kExact, int kOut>
struct Strips {
  float out[kOut][2][4] = {};
  Softmax softmax;

  static constexpr int kBytes = kTileBytes<kFormat>;
  // Tiles of K that a lane loads before it needs them, and of V: as far as registers reach.
  static constexpr int kAhead = kOut > 8 ? 4 : 8;
  static constexpr int kValuesAhead = kOut == 8 && kExact ? 8 : 4;

  /// One strip of 16 tokens: K at `k`, V of this part at `v`, whose scales are 64 floats behind
  /// those of K (int8).
  __device__ void add(const Task& task, const LaneRows& rows, const uint4* queries,
                      const std::byte* k, const std::byte* v, const float* k_scale, int outs,
                      int first, int lane) {
    const int steps = kExact ? kSteps : task.shape.kv.tiles();
    LaneTile<kFormat> values[kValuesAhead];
    float s[1][2][4] = {};
#pragma unroll
    for (int c = 0; c < kSteps; c += kAhead) {
      LaneTile<kFormat> keys[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead && c + i < kSteps; ++i) {
        if (kExact || c + i < steps) keys[i].load(k + (c + i) * kBytes, lane);
      }
      if (c == 0) load_values(values, v, outs, lane);
#pragma unroll
      for (int i = 0; i < kAhead && c + i < kSteps; ++i) {
        if (kExact || c + i < steps) add_scores(queries, c + i, keys[i], s[0], lane);
      }
    }
    float fade[2];
    finish_scores<kFormat>(s, rows, first, k_scale, false, lane);
    softmax.weigh(s, fade);
    const WeightTerms<kFormat, 1> weights(s, k_scale + kBlockTokens, lane);
#pragma unroll
    for (int o = 0; o < kOut; ++o) {
      if (!kExact && o >= outs) continue;
      LaneTile<kFormat> tile;
      if (o < kValuesAhead) {
        tile = values[o < kValuesAhead ? o : 0];
      } else {
        tile.load(v + o * kBytes, lane);
      }
      OutputTile<kFormat> to(out[o], fade);
      to.add(weights.terms[0], tile);
      to.finish(weights.unit);
    }
  }

 private:
  template <int kCount>
  __device__ static void load_values(LaneTile<kFormat> (&values)[kCount], const std::byte* v,
                                     int outs, int lane) {
#pragma unroll
    for (int o = 0; o < kCount; ++o) {
      if (kExact || o < outs) values[o].load(v + o * kBytes, lane);
    }
  }
  __device__ static void add_scores(const uint4* queries, int step, const LaneTile<kFormat>& keys,
                                    float (&s)[2][4], int lane) {
    const uint4 high = queries[(2 * step) * kWarp + lane];
    const uint4 low = queries[(2 * step + 1) * kWarp + lane];
    const Terms q = {{high.x, high.y, high.z, high.w}, {low.x, low.y, low.z, low.w}};
    unsigned b[2][2];
    keys.operands(b);
    multiply_tile<kFormat>(s, q, b);
  }
};

/// Shared memory: the queries' operands, then in their place the sums of all warps; and what each
/// warp has seen.
template <int kOut>
constexpr int kSumsPitch = kOut* kKvTile + 8;  // floats; rows begin 8 banks apart
constexpr int queries_bytes(int steps) {
  return steps * 2 * kWarp * static_cast<int>(sizeof(uint4));
}
__host__ __device__ constexpr int tops_bytes() {
  return kWarps * kAttentionRows * static_cast<int>(sizeof(float2));
}

/// A row's largest score and weight over all warps.
__device__ float2 combine_tops(const float2* tops, int row) {
  float2 all = make_float2(-INFINITY, 0.0F);
  for (int w = 0; w < kWarps; ++w) all.x = fmaxf(all.x, tops[w * kAttentionRows + row].x);
  const float base = all.x == -INFINITY ? 0.0F : all.x;
  for (int w = 0; w < kWarps; ++w) {
    const float2 own = tops[w * kAttentionRows + row];
    all.y += own.y * exp2f(own.x - base);
  }
  return all;
}

/// The warps' sums into `sums` [rows][pitch], one warp after the other.
template <int kOut>
__device__ void combine_warps(const float (&out)[kOut][2][4], const Softmax& softmax, float* sums,
                              float2* tops, int warp, int lane) {
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float weight = quad_sum(softmax.weight[r]);
    if (t == 0) tops[warp * kAttentionRows + g + 8 * r] = make_float2(softmax.top[r], weight);
  }
  __syncthreads();  // the queries are used no more, too
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float top = combine_tops(tops, g + 8 * r).x;
    factor[r] = exp2f(softmax.top[r] - (top == -INFINITY ? 0.0F : top));
  }
  for (int turn = 0; turn < kWarps; ++turn) {
    if (turn == warp) {
#pragma unroll
      for (int i = 0; i < kOut * 4; ++i) {
        const int r = i % 2, o = i / 4, half = i / 2 % 2;
        auto* to = reinterpret_cast<float2*>(sums + (g + 8 * r) * kSumsPitch<kOut> + o * kKvTile +
                                             half * 8 + t * 2);
        float2 x = turn == 0 ? make_float2(0, 0) : *to;
        x.x += factor[r] * out[o][half][2 * r];
        x.y += factor[r] * out[o][half][2 * r + 1];
        *to = x;
      }
    }
    __syncthreads();
  }
}

template <int kOut>
__device__ void store_rows(const Task& task, const Place& place, const float* sums,
                           const float2* tops) {
  const AttentionShape& shape = task.shape;
  const int group = shape.heads_of_kv(), head_dim = shape.kv.head_dim;
  const int first = place.part * kOut * kKvTile;
  const int width = min(kOut * kKvTile, (task.splits > 1 ? shape.kv.padded() : head_dim) - first);
  for (int row = static_cast<int>(threadIdx.x) / kWarp; row < place.rows; row += kWarps) {
    const int of_slice = place.first_row + row;
    const int head = place.kv_head * group + of_slice % group;
    const float2 top = combine_tops(tops, row);
    const float* from = sums + row * kSumsPitch<kOut>;
    float* to = task.out.data + (place.slice.first + of_slice / group) * task.out.ld +
                static_cast<int64_t>(head) * head_dim + first;
    float factor = 1.0F / top.y;
    if (task.splits > 1) {
      const int64_t at = (static_cast<int64_t>(blockIdx.z) * shape.n_heads + head) * task.splits +
                         static_cast<int64_t>(blockIdx.x);
      to = task.sums + at * shape.kv.padded() + first;
      factor = 1.0F;
      if (place.part == 0 && threadIdx.x % kWarp == 0) task.tops[at] = top;
    }
    for (int d = static_cast<int>(threadIdx.x) % kWarp; d < width; d += kWarp) {
      to[d] = from[d] * factor;
    }
  }
}

/// Thread blocks that a multiprocessor is to hold: as many as have registers without spills.
template <KvFormat kFormat, bool kExact, int kOut>
constexpr int kResident = kOut <= 4 ? 4
                                    : (kOut == 8 && (kExact || kFormat == KvFormat::int8) ? 3 : 2);

template <KvFormat kFormat, int kSteps, bool kExact, int kOut>
__global__ void __launch_bounds__(kThreads, (kResident<kFormat, kExact, kOut>))
    attend_strips(Task task) {
  wait_for_previous();
  Place place;
  if (!place.find(task)) return;
  const AttentionShape& shape = task.shape;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int tiles = shape.kv.tiles();
  auto* const memory = dynamic_shared<std::byte>();
  auto* const tops = reinterpret_cast<float2*>(memory);
  auto* const queries = reinterpret_cast<uint4*>(memory + tops_bytes());

  const LaneRows rows(shape, task.q, place.slice, place.kv_head, place.first_row, lane);
  for (int c = warp; c < tiles; c += kWarps) {
    const Terms q = rows.terms<kFormat>(c, shape.kv.head_dim, lane);
    queries[(2 * c) * kWarp + lane] = make_uint4(q.high[0], q.high[1], q.high[2], q.high[3]);
    queries[(2 * c + 1) * kWarp + lane] = make_uint4(q.low[0], q.low[1], q.low[2], q.low[3]);
  }
  __syncthreads();

  Strips<kFormat, kSteps, kExact, kOut> strips;
  const int64_t head_at = shape.kv.head_offset(shape.layer, place.kv_head);
  std::byte* const* const blocks = task.tables.blocks + place.slice.first_block;
  const int strip_bytes = tiles * kTileBytes<kFormat>;
  const int outs = min(kOut, tiles - place.part * kOut);
  const std::byte* next = blocks[place.blocks.first];
  for (int b = place.blocks.first; b < place.blocks.end; ++b) {
    const std::byte* const head = next + head_at;
    if (b + 1 < place.blocks.end) next = blocks[b + 1];
    const int first = b * kBlockTokens + warp * kKvTile;
    if (first >= place.seen.end || first + kKvTile <= place.seen.first) continue;
    const std::byte* const k = head + warp * strip_bytes;
    const std::byte* const v = k + shape.kv.part_bytes() + place.part * kOut * kTileBytes<kFormat>;
    const auto* scales = reinterpret_cast<const float*>(head + 2 * shape.kv.part_bytes());
    strips.add(task, rows, queries, k, v, scales + warp * kKvTile, outs, first, lane);
  }
  auto* const sums = reinterpret_cast<float*>(queries);
  combine_warps<kOut>(strips.out, strips.softmax, sums, tops, warp, lane);
  store_rows<kOut>(task, place, sums, tops);
}

/// A thread block puts the splits of a head together.
__global__ void combine_splits(Task task) {
  wait_for_previous();
  __shared__ float factors[kMaxSplits];
  const AttentionShape& shape = task.shape;
  const auto head = static_cast<int64_t>(blockIdx.x), s = static_cast<int64_t>(blockIdx.y);
  const DeviceSlice slice = task.tables.slices[s];
  if (slice.count != 1) return;
  const int used = used_splits(seen_tokens(slice.length, shape.window), task.splits);
  const int64_t first = (s * shape.n_heads + head) * task.splits;
  const float2* tops = task.tops + first;
  float top = -INFINITY, weight = 0;
  for (int i = 0; i < used; ++i) top = fmaxf(top, tops[i].x);
  for (int i = static_cast<int>(threadIdx.x); i < used; i += kThreads) {
    factors[i] = exp2f(tops[i].x - top);
  }
  __syncthreads();
  for (int i = 0; i < used; ++i) weight += factors[i] * tops[i].y;
  float* const out = task.out.data + slice.first * task.out.ld + head * shape.kv.head_dim;
  for (int d = static_cast<int>(threadIdx.x); d < shape.kv.head_dim; d += kThreads) {
    float sum = 0;
    for (int i = 0; i < used; ++i) {
      sum += factors[i] * task.sums[(first + i) * shape.kv.padded() + d];
    }
    out[d] = sum / weight;
  }
}

template <KvFormat kFormat, int kSteps, bool kExact, int kOut>
void launch_strips(const Task& task, int64_t z, cudaStream_t stream) {
  const int tiles = task.shape.kv.tiles();
  const int parts = (tiles + kOut - 1) / kOut;
  const int sums_bytes = kAttentionRows * kSumsPitch<kOut> * static_cast<int>(sizeof(float));
  const int bytes = tops_bytes() + max(queries_bytes(tiles), sums_bytes);
  const LaunchShape shape{
      dim3(static_cast<unsigned>(task.splits),
           static_cast<unsigned>(task.shape.kv.n_kv_heads * task.row_tiles * parts),
           static_cast<unsigned>(z)),
      kThreads, static_cast<size_t>(bytes)};
  launch("attention", attend_strips<kFormat, kSteps, kExact, kOut>, shape, stream, true, task);
}

template <KvFormat kFormat>
void launch_format(const Task& task, int64_t z, cudaStream_t stream) {
  const int tiles = task.shape.kv.tiles();
  if (tiles == 4) return launch_strips<kFormat, 4, true, 4>(task, z, stream);
  if constexpr (kFormat != KvFormat::int8) {  // whose operands take more registers than there are
    if (tiles == 8) return launch_strips<kFormat, 8, true, 8>(task, z, stream);
  }
  if (tiles <= 8) return launch_strips<kFormat, 8, false, 8>(task, z, stream);
  if (tiles <= 16) return launch_strips<kFormat, 16, false, 16>(task, z, stream);
  launch_strips<kFormat, 32, false, 16>(task, z, stream);
}

void launch_any(const Task& task, int64_t z, cudaStream_t stream) {
  if (z == 0) return;
  switch (task.shape.kv.format) {
    case KvFormat::bf16:
      return launch_format<KvFormat::bf16>(task, z, stream);
    case KvFormat::int8:
      return launch_format<KvFormat::int8>(task, z, stream);
    case KvFormat::f16:
      return launch_format<KvFormat::f16>(task, z, stream);
  }
}

}  // namespace

void attention_decode(const AttentionShape& shape, const FloatRows& q, const FloatRows& out,
                      const StepTables& tables, int64_t n_slices, int splits, float* workspace,
                      cudaStream_t stream) {
  const int64_t sums = n_slices * shape.n_heads * splits * shape.kv.padded();
  auto* const tops = workspace != nullptr ? reinterpret_cast<float2*>(workspace + sums) : nullptr;
  const int row_tiles = (shape.heads_of_kv() + kAttentionRows - 1) / kAttentionRows;
  const Task task{shape, q, out, tables, nullptr, row_tiles, splits, workspace, tops};
  launch_any(task, n_slices, stream);
  if (splits == 1 || n_slices == 0) return;
  const LaunchShape combine{
      dim3(static_cast<unsigned>(shape.n_heads), static_cast<unsigned>(n_slices)), kThreads, 0};
  launch("attention_splits", combine_splits, combine, stream, true, task);
}

void attention_of_tiles(const AttentionShape& shape, const FloatRows& q, const FloatRows& out,
                        const StepTables& tables, const AttentionTile* tiles, int64_t n_tiles,
                        cudaStream_t stream) {
  const Task task{shape, q, out, tables, tiles, kTileRows / kAttentionRows, 1, nullptr, nullptr};
  launch_any(task, n_tiles, stream);
}

}  // namespace qllm::cuda
