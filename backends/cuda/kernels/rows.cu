// One block makes one row. A warp takes 128 values at a time, four neighbours a lane, so that a
// group of 32, 64 or 128 is a part of a warp and a Hadamard of 64 is half of one.
//
// A row with one scale is made twice over: its values are written and their largest found, then
// each lane reads back what it wrote itself and quantizes it. A row in groups is quantized as it is
// made.
#include "kernels/device.h"
#include "kernels/rows.h"

namespace qllm::cuda {
namespace {

constexpr int kLaneValues = 4;
constexpr int kTile = kWarp * kLaneValues;

__device__ int lane_of() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ int warp_of() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ int warps_of_block() { return static_cast<int>(blockDim.x) / kWarp; }

/// Every thread of the block gets Reduce over the values of all.
template <class Reduce>
__device__ float reduce_block(float v, Reduce reduce) {
  __shared__ float part[kWarp];
  const float mine = reduce(v);
  if (lane_of() == 0) part[warp_of()] = mine;
  __syncthreads();
  const float all = reduce(lane_of() < warps_of_block() ? part[lane_of()] : 0.0F);
  __syncthreads();  // part may be written again
  return all;
}

struct SumOf {
  __device__ float operator()(float v) const { return warp_sum(v); }
};
struct LargestOf {
  __device__ float operator()(float v) const { return warp_max(v); }
};

/// Four values from i on; those past the width are 0.
__device__ float4 load4(const float* row, int64_t i, int64_t width) {
  if (i >= width) return make_float4(0, 0, 0, 0);
  float4 v = *reinterpret_cast<const float4*>(row + i);
  if (i + 1 >= width) v.y = 0;
  if (i + 2 >= width) v.z = 0;
  if (i + 3 >= width) v.w = 0;
  return v;
}

struct PlainRows {
  FloatRows in;

  __device__ void prepare(int64_t /*r*/) {}
  __device__ float4 load(int64_t r, int64_t i) const {
    return load4(in.data + r * in.ld, i, in.width);
  }
};

struct NormedRows {
  FloatRows in;
  const float* gain;
  float eps;
  float factor = 0;

  __device__ void prepare(int64_t r) {
    float sum = 0;
    const int64_t step = static_cast<int64_t>(blockDim.x) * kLaneValues;
    for (int64_t i = static_cast<int64_t>(threadIdx.x) * kLaneValues; i < in.width; i += step) {
      const float4 v = load4(in.data + r * in.ld, i, in.width);
      sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    sum = reduce_block(sum, SumOf());
    factor = 1.0F / sqrtf(sum / static_cast<float>(in.width) + eps);
  }
  __device__ float4 load(int64_t r, int64_t i) const {
    float4 v = load4(in.data + r * in.ld, i, in.width);
    const float4 g = gain != nullptr ? load4(gain, i, in.width) : make_float4(1, 1, 1, 1);
    v.x *= factor * g.x;
    v.y *= factor * g.y;
    v.z *= factor * g.z;
    v.w *= factor * g.w;
    return v;
  }
};

__device__ float silu_times(float g, float u) { return g / (1.0F + expf(-g)) * u; }

/// One step of the fast transform over neighbours `mask` lanes apart.
__device__ float4 butterfly(float4 v, int mask) {
  const float sign = (lane_of() & mask) != 0 ? -1.0F : 1.0F;
  v.x = shuffle_xor(v.x, mask) + sign * v.x;
  v.y = shuffle_xor(v.y, mask) + sign * v.y;
  v.z = shuffle_xor(v.z, mask) + sign * v.z;
  v.w = shuffle_xor(v.w, mask) + sign * v.w;
  return v;
}

/// y[i] = sum_j (-1)^popcount(i & j) / 8 x[j] over the 64 values of 16 lanes.
__device__ float4 hadamard64(float4 v) {
  v = make_float4(v.x + v.y, v.x - v.y, v.z + v.w, v.z - v.w);
  v = make_float4(v.x + v.z, v.y + v.w, v.x - v.z, v.y - v.w);
  for (int mask = 1; mask < 16; mask *= 2) v = butterfly(v, mask);
  return make_float4(v.x / 8, v.y / 8, v.z / 8, v.w / 8);
}

/// silu(g) u of four outputs from i on; those past the width are 0.
__device__ float4 swiglu4(float4 g, float4 u, int64_t i, int64_t width) {
  float4 v = make_float4(silu_times(g.x, u.x), silu_times(g.y, u.y), silu_times(g.z, u.z),
                         silu_times(g.w, u.w));
  if (i + 1 >= width) v.y = 0;
  if (i + 2 >= width) v.z = 0;
  if (i + 3 >= width) v.w = 0;
  return v;
}

/// Where the gate of output i stands; its up is 64 behind it.
__device__ int64_t gate_of(int64_t i) { return i / 64 * 128 + i % 64; }

struct SwigluRows {
  FloatRows gate_up;
  int64_t width;
  bool hadamard;

  __device__ void prepare(int64_t /*r*/) {}
  __device__ float4 load(int64_t r, int64_t i) const {
    const float* gate = gate_up.data + r * gate_up.ld + gate_of(i);
    float4 v = make_float4(0, 0, 0, 0);
    if (i < width) {
      v = swiglu4(*reinterpret_cast<const float4*>(gate),
                  *reinterpret_cast<const float4*>(gate + 64), i, width);
    }
    return hadamard ? hadamard64(v) : v;
  }
};

struct SwigluSums {
  SumRows gate_up;
  int64_t width;
  bool hadamard;

  __device__ void prepare(int64_t /*r*/) {}
  /// Scaled as scale_sums does it.
  __device__ float4 scaled(int64_t r, int64_t n) const {
    const int4 s = *reinterpret_cast<const int4*>(gate_up.sums + r * gate_up.ld + n);
    const float4 w = *reinterpret_cast<const float4*>(gate_up.w_scale + n);
    const float x = gate_up.x_scale[r];
    return make_float4(static_cast<float>(s.x) * (x * w.x), static_cast<float>(s.y) * (x * w.y),
                       static_cast<float>(s.z) * (x * w.z), static_cast<float>(s.w) * (x * w.w));
  }
  __device__ float4 load(int64_t r, int64_t i) const {
    float4 v = make_float4(0, 0, 0, 0);
    if (i < width) v = swiglu4(scaled(r, gate_of(i)), scaled(r, gate_of(i) + 64), i, width);
    return hadamard ? hadamard64(v) : v;
  }
};

/// 0 for what is no finite number: it does not set a scale.
__device__ float finite_size(float x) {
  const float size = fabsf(x);
  return size <= 3.402823466e38F ? size : 0.0F;
}
__device__ float largest4(float4 v) {
  return fmaxf(fmaxf(finite_size(v.x), finite_size(v.y)),
               fmaxf(finite_size(v.z), finite_size(v.w)));
}

/// As quantize_row_s8: NaN is 0, infinities saturate.
__device__ int code(float x, float inverse) {
  const float y = fminf(fmaxf(x * inverse, -127.0F), 127.0F);
  return x == x ? __float2int_rn(y) : 0;
}

struct Scale {
  float scale, inverse;
};
__device__ Scale scale_for(float largest) {
  return largest > 0 ? Scale{largest / 127.0F, 127.0F / largest} : Scale{1.0F, 0.0F};
}

/// Writes four codes; returns their sum.
__device__ int store_codes(float4 v, float inverse, int8_t* q) {
  const int a = code(v.x, inverse), b = code(v.y, inverse);
  const int c = code(v.z, inverse), d = code(v.w, inverse);
  *reinterpret_cast<int*>(q) = (a & 0xff) | (b & 0xff) << 8 | (c & 0xff) << 16 | d << 24;
  return a + b + c + d;
}

/// A warp's 128 values in groups: each group's lanes find their scale together.
__device__ void store_groups(float4 v, int64_t r, int64_t i, const QuantRows& out) {
  const int lanes = static_cast<int>(out.group) / kLaneValues;
  float largest = largest4(v);
  for (int mask = 1; mask < lanes; mask *= 2) {
    largest = fmaxf(largest, shuffle_xor(largest, mask));
  }
  const Scale s = scale_for(largest);
  int sum = 0;
  if (i < out.ld) sum = store_codes(v, s.inverse, out.q + r * out.ld + i);
  for (int mask = 1; mask < lanes; mask *= 2) sum += shuffle_xor(sum, mask);
  if (i < out.ld && lane_of() % lanes == 0) {
    const int64_t at = r * (out.ld / out.group) + i / out.group;
    out.scale[at] = s.scale;
    out.sum[at] = sum;
  }
}

__device__ void store_floats(float4 v, float* row, int64_t i, int64_t ld) {
  if (i < ld) *reinterpret_cast<float4*>(row + i) = v;
}

template <class Source>
__global__ void make_rows(Source source, RowOutputs out) {
  wait_for_previous();
  const auto r = static_cast<int64_t>(blockIdx.x);
  const QuantRows quantized = out.quantized;
  const bool one_scale = quantized.q != nullptr && quantized.group == 0;
  const int64_t first = static_cast<int64_t>(warp_of()) * kTile + lane_of() * kLaneValues;
  const int64_t step = static_cast<int64_t>(warps_of_block()) * kTile;
  const int64_t ld = quantized.q != nullptr ? quantized.ld : out.floats.ld;
  const int64_t end = (ld + kTile - 1) / kTile * kTile;  // all lanes of a warp go on together
  const bool floats = out.floats.data != nullptr;
  float* const kept =
      floats ? out.floats.data + r * out.floats.ld : out.scratch + r * out.scratch_ld;
  const int64_t kept_ld = floats ? out.floats.ld : out.scratch_ld;

  source.prepare(r);
  float largest = 0;
  for (int64_t i = first; i < end; i += step) {
    const float4 v = source.load(r, i);
    largest = fmaxf(largest, largest4(v));
    if (floats || one_scale) store_floats(v, kept, i, kept_ld);
    if (quantized.q != nullptr && !one_scale) store_groups(v, r, i, quantized);
  }
  if (!one_scale) return;
  const Scale s = scale_for(reduce_block(largest, LargestOf()));
  for (int64_t i = first; i < quantized.ld; i += step) {
    const float4 v =
        i < kept_ld ? *reinterpret_cast<const float4*>(kept + i) : make_float4(0, 0, 0, 0);
    store_codes(v, s.inverse, quantized.q + r * quantized.ld + i);
  }
  if (threadIdx.x == 0) quantized.scale[r] = s.scale;
}

__global__ void copy_selected_rows(FloatRows in, const int32_t* output_rows, FloatRows out) {
  wait_for_previous();
  const float* from = in.data + static_cast<int64_t>(output_rows[blockIdx.x]) * in.ld;
  float* to = out.data + static_cast<int64_t>(blockIdx.x) * out.ld;
  for (int64_t i = threadIdx.x; i < out.width; i += blockDim.x) to[i] = from[i];
}

template <class Source>
void launch_rows(const char* name, const Source& source, int64_t width, int64_t rows,
                 const RowOutputs& out, cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{dim3(static_cast<unsigned>(rows)), row_threads(width), 0};
  launch(name, make_rows<Source>, shape, stream, true, source, out);
}

}  // namespace

int row_threads(int64_t width) {
  const int64_t warps = (width + kTile - 1) / kTile;
  return kWarp * static_cast<int>(warps < 2 ? 2 : (warps > 16 ? 16 : warps));
}

void rms_norm_rows(const FloatRows& in, const float* gain, float eps, int64_t rows,
                   const RowOutputs& out, cudaStream_t stream) {
  launch_rows("rms_norm", NormedRows{in, gain, eps}, in.width, rows, out, stream);
}

void swiglu_rows(const FloatRows& gate_up, int64_t width, bool hadamard, int64_t rows,
                 const RowOutputs& out, cudaStream_t stream) {
  launch_rows("swiglu", SwigluRows{gate_up, width, hadamard}, width, rows, out, stream);
}

void swiglu_sums(const SumRows& gate_up, int64_t width, bool hadamard, int64_t rows,
                 const RowOutputs& out, cudaStream_t stream) {
  launch_rows("swiglu_sums", SwigluSums{gate_up, width, hadamard}, width, rows, out, stream);
}

void quantize_rows(const FloatRows& in, int64_t rows, const QuantRows& out, cudaStream_t stream) {
  RowOutputs outputs;
  outputs.quantized = out;
  // What a lane writes back is what it read there.
  outputs.scratch = in.data;
  outputs.scratch_ld = in.ld;
  launch_rows("quantize", PlainRows{in}, in.width, rows, outputs, stream);
}

void select_rows(const FloatRows& in, const int32_t* output_rows, int64_t rows,
                 const FloatRows& out, cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{dim3(static_cast<unsigned>(rows)), 256, 0};
  launch("select_rows", copy_selected_rows, shape, stream, true, in, output_rows, out);
}

}  // namespace qllm::cuda
