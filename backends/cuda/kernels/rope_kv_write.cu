// A thread block takes a token and some of its heads, a warp a head at a time. The head is turned
// in shared memory, where an element finds its partner whatever the style and the width.
#include "kernels/device_half.h"
#include "kernels/rope_kv_write.h"

namespace qllm::cuda {
namespace {

constexpr int kWarps = 4;
constexpr float kLargestF16 = 65504.0F;
constexpr float kLargestBf16 = 3.38953139e38F;  // 2^127 (2 - 2^-7)
constexpr float kLargestF32 = 3.402823466e38F;

/// A warp's share of the block's shared memory: a head before and after its rotation.
struct Scratch {
  float* before;
  float* after;
};

/// Within +-largest, NaN as 0.
__device__ float finite(float x, float largest) {
  return x == x ? fminf(fmaxf(x, -largest), largest) : 0.0F;
}

__device__ void rotate(const RopeShape& shape, const float* cosines, const float* sines, int lane,
                       const Scratch& s) {
  const int n = shape.kv.head_dim, half = shape.half;
  const bool adjacent = shape.style == RopeStyle::adjacent;
  for (int i = lane; i < n; i += kWarp) {
    float y = s.before[i];
    if (i < 2 * half) {
      const int pair = adjacent ? i / 2 : i % half;
      const bool second = adjacent ? i % 2 == 1 : i >= half;
      const int step = adjacent ? 1 : half;
      const float other = s.before[second ? i - step : i + step];
      const float c = cosines[pair], t = sines[pair];
      y = second ? other * t + y * c : y * c - other * t;
    }
    s.after[i] = y;
  }
}

/// y[i] = sum_j (-1)^popcount(i & j) / 8 x[j] in each 64: a lane holds i and i + 32.
__device__ void turn(int n, int lane, float* x) {
  for (int first = lane; first < n; first += 64) {
    const float low = x[first], high = x[first + 32];
    float a = low + high, b = low - high;
    for (int mask = 1; mask < kWarp; mask *= 2) {
      const float sign = (lane & mask) != 0 ? -1.0F : 1.0F;
      a = shuffle_xor(a, mask) + sign * a;
      b = shuffle_xor(b, mask) + sign * b;
    }
    x[first] = a / 8;
    x[first + 32] = b / 8;
  }
}

/// As quantize_row_s8 (quant/int8.h), `x` one head.
struct Codes {
  float scale = 1.0F, inverse = 0.0F;

  __device__ Codes(const float* x, int n, int lane) {
    float largest = 0;
    for (int i = lane; i < n; i += kWarp) {
      const float size = fabsf(x[i]);
      if (size <= kLargestF32) largest = fmaxf(largest, size);
    }
    largest = warp_max(largest);
    if (largest > 0) {
      scale = largest / 127.0F;
      inverse = 127.0F / largest;
    }
  }
  __device__ int8_t operator()(float x) const {
    const float y = fminf(fmaxf(x * inverse, -127.0F), 127.0F);
    return x == x ? static_cast<int8_t>(__float2int_rn(y)) : int8_t{0};
  }
};

/// One token's key or value, x [head_dim], into its head of a block.
__device__ void store(const KvGeometry& kv, bool value, int token, const float* x, int lane,
                      std::byte* head) {
  const int n = kv.head_dim;
  if (kv.is_int8()) {
    const Codes codes(x, n, lane);
    for (int d = lane; d < n; d += kWarp) {
      const int at = value ? kv.v_offset(token, d) : kv.k_offset(token, d);
      *reinterpret_cast<int8_t*>(head + at) = codes(x[d]);
    }
    if (lane == 0) *reinterpret_cast<float*>(head + kv.scale_offset(token, value)) = codes.scale;
    return;
  }
  const bool f16 = kv.format == KvFormat::f16;
  for (int d = lane; d < n; d += kWarp) {
    const int at = value ? kv.v_offset(token, d) : kv.k_offset(token, d);
    const unsigned bits = f16 ? pack_f16(finite(x[d], kLargestF16), 0.0F)
                              : pack_bf16(finite(x[d], kLargestBf16), 0.0F);
    *reinterpret_cast<uint16_t*>(head + at) = static_cast<uint16_t>(bits);
  }
}

struct Task {
  RopeShape shape;
  FloatRows qkv, q;
  StepTables tables;
  int heads_of_block;
};

/// Head `h` of q, k and v in the order in which they lie in a row.
__device__ void make_head(const Task& task, int64_t token, int h, const float* cosines,
                          const float* sines, int lane, const Scratch& s) {
  const RopeShape& shape = task.shape;
  const KvGeometry& kv = shape.kv;
  const int n = kv.head_dim;
  const float* x = task.qkv.data + token * task.qkv.ld + static_cast<int64_t>(h) * n;
  const int kv_head = h - shape.n_heads;
  const bool value = kv_head >= kv.n_kv_heads;
  for (int i = lane; i < n; i += kWarp) s.before[i] = x[i];
  sync_warp();
  if (!value) rotate(shape, cosines, sines, lane, s);
  sync_warp();
  if (!value && kv.turns_keys()) turn(n, lane, s.after);
  sync_warp();
  if (kv_head < 0) {
    float* to = task.q.data + token * task.q.ld + static_cast<int64_t>(h) * n;
    for (int i = lane; i < n; i += kWarp) to[i] = s.after[i];
    return;
  }
  const DeviceSlice& slice = task.tables.slices[task.tables.slice_of[token]];
  const int position = task.tables.position[token];
  constexpr int kBlock = static_cast<int>(kKvBlockTokens);
  std::byte* block = task.tables.blocks[slice.first_block + position / kBlock];
  std::byte* head = block + kv.head_offset(shape.layer, value ? kv_head - kv.n_kv_heads : kv_head);
  store(kv, value, position % kBlock, value ? s.before : s.after, lane, head);
}

__global__ void rope_and_write(Task task) {
  wait_for_previous();
  const RopeShape& shape = task.shape;
  const auto token = static_cast<int64_t>(blockIdx.x);
  float* const memory = dynamic_shared<float>();
  float* const cosines = memory;
  float* const sines = memory + shape.half;
  const auto position = static_cast<float>(task.tables.position[token]);
  for (int i = static_cast<int>(threadIdx.x); i < shape.half; i += kWarps * kWarp) {
    const float angle = position * shape.inv_freq[i];
    cosines[i] = cosf(angle);
    sines[i] = sinf(angle);
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float* const own = memory + 2 * shape.half + warp * 2 * shape.kv.head_dim;
  const Scratch scratch{own, own + shape.kv.head_dim};
  const int heads = shape.n_heads + 2 * shape.kv.n_kv_heads;
  const int first = static_cast<int>(blockIdx.y) * task.heads_of_block;
  const int end = min(heads, first + task.heads_of_block);
  for (int h = first + warp; h < end; h += kWarps) {
    make_head(task, token, h, cosines, sines, lane, scratch);
    sync_warp();  // the scratch may be written again
  }
}

/// The same bits, or those of the largest finite number, or of 0.
__device__ uint16_t finite_bits(KvFormat format, uint16_t bits) {
  const int infinite = format == KvFormat::f16 ? 0x7c00 : 0x7f80, size = bits & 0x7fff;
  if (size < infinite) return bits;
  return size == infinite ? static_cast<uint16_t>(bits - 1) : uint16_t{0};
}

/// A thread block makes one (layer, KV head).
__global__ void make_finite(KvGeometry kv, std::byte* block) {
  std::byte* head = block + static_cast<int64_t>(blockIdx.x) * kv.head_bytes();
  const auto thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  if (kv.is_int8()) {
    auto* scales = reinterpret_cast<float*>(head + kv.scale_offset(0, false));
    for (int i = thread; i < 2 * static_cast<int>(kKvBlockTokens); i += threads) {
      if (!(fabsf(scales[i]) <= kLargestF32)) scales[i] = 0.0F;
    }
    return;
  }
  auto* values = reinterpret_cast<uint16_t*>(head);
  for (int i = thread; i < kv.part_bytes(); i += threads) {
    values[i] = finite_bits(kv.format, values[i]);
  }
}

}  // namespace

int rope_heads_of_block(int64_t n_tokens, int heads) {
  // Some 256 thread blocks or more, of at least a head for each warp.
  int of_block = kWarps;
  while (of_block < heads && n_tokens * ((heads + of_block - 1) / of_block) > 512) of_block *= 2;
  return of_block;
}

void rope_kv_write(const RopeShape& shape, const FloatRows& qkv, const FloatRows& q,
                   const StepTables& tables, int64_t n_tokens, cudaStream_t stream) {
  if (n_tokens == 0) return;
  const int heads = shape.n_heads + 2 * shape.kv.n_kv_heads;
  const int of_block = rope_heads_of_block(n_tokens, heads);
  const size_t floats = static_cast<size_t>(2 * shape.half + kWarps * 2 * shape.kv.head_dim);
  const LaunchShape launch_shape{dim3(static_cast<unsigned>(n_tokens),
                                      static_cast<unsigned>((heads + of_block - 1) / of_block)),
                                 kWarps * kWarp, floats * sizeof(float)};
  launch("rope_kv_write", rope_and_write, launch_shape, stream, true,
         Task{shape, qkv, q, tables, of_block});
}

void make_kv_finite(const KvGeometry& kv, std::byte* block, cudaStream_t stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>(kv.n_layers * kv.n_kv_heads)), 256, 0};
  launch("make_kv_finite", make_finite, shape, stream, false, kv, block);
}

}  // namespace qllm::cuda
