#include "quant/ggml_dequant_k.h"

#include <array>
#include <cstdint>
#include <cstring>

#include "quant/float_bits.h"

namespace qllm {
namespace {

float load_half(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return half_to_float(value);
}

const uint8_t* as_u8(const std::byte* p) { return reinterpret_cast<const uint8_t*>(p); }

// Q2_K, Q3_K and Q6_K walk a block alike: two halves of 128 values, each four runs of 32 that share
// bytes at shifts 0, 2, 4, 6; every 16 values have a scale of their own.
constexpr int kHalves = 2;
constexpr int kRuns = 4;
constexpr int kRun = 32;
constexpr int scale_index(int half, int run, int part) { return half * 8 + run * 2 + part; }
constexpr int value_index(int half, int run, int part) {
  return (half * kRuns + run) * kRun + part * 16;
}

// Sixteen 6-bit scales in 12 bytes: low nibbles of scales 0..7 and 8..15 in the nibbles of bytes
// 0..7, their upper two bits in bytes 8..11.
std::array<int, 16> scales_q3_k(const uint8_t* packed) {
  std::array<int, 16> scales{};
  for (size_t i = 0; i < 16; ++i) {
    const int low = (packed[i % 8] >> (i < 8 ? 0 : 4)) & 15;
    const int high = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
    scales[i] = (low | (high << 4)) - 32;
  }
  return scales;
}

struct ScalesAndMins {
  std::array<float, 8> scale;
  std::array<float, 8> min;
};

ScalesAndMins scales_q4_k(const std::byte* packed, float d, float dmin) {
  const SubScales sub = sub_scales_q4_k(packed);
  ScalesAndMins out{};
  for (size_t i = 0; i < 8; ++i) {
    out.scale[i] = d * static_cast<float>(sub.scale[i]);
    out.min[i] = dmin * static_cast<float>(sub.min[i]);
  }
  return out;
}

}  // namespace

// The first four of each in the low bits of bytes 0..3 and 4..7; the others' low nibbles in bytes
// 8..11, their upper bits atop bytes 0..7.
SubScales sub_scales_q4_k(const std::byte* packed) {
  const uint8_t* bytes = as_u8(packed);
  SubScales out{};
  for (size_t i = 0; i < 4; ++i) {
    out.scale[i] = bytes[i] & 63;
    out.min[i] = bytes[i + 4] & 63;
    out.scale[i + 4] = static_cast<uint8_t>((bytes[i + 8] & 15) | ((bytes[i] >> 2) & 0x30));
    out.min[i + 4] = static_cast<uint8_t>((bytes[i + 8] >> 4) | ((bytes[i + 4] >> 2) & 0x30));
  }
  return out;
}

// scales[16] (scale | min << 4), qs[64], d, dmin;  y = (d scale) q - (dmin min)
void dequantize_block_q2_k(const std::byte* src, float* out) {
  const uint8_t* scales = as_u8(src);
  const uint8_t* qs = as_u8(src + 16);
  const float d = load_half(src + 80);
  const float dmin = load_half(src + 82);
  for (int half = 0; half < kHalves; ++half) {
    for (int run = 0; run < kRuns; ++run) {
      for (int part = 0; part < 2; ++part) {
        const uint8_t packed = scales[scale_index(half, run, part)];
        const float scale = d * static_cast<float>(packed & 15);
        const float min = dmin * static_cast<float>(packed >> 4);
        const uint8_t* q = qs + half * kRun + part * 16;
        float* y = out + value_index(half, run, part);
        for (int i = 0; i < 16; ++i) {
          y[i] = scale * static_cast<float>((q[i] >> (2 * run)) & 3) - min;
        }
      }
    }
  }
}

// hmask[32], qs[64], scales[12], d;  y = (d scale) (q - 4 where the mask bit is 0)
void dequantize_block_q3_k(const std::byte* src, float* out) {
  const uint8_t* mask = as_u8(src);
  const uint8_t* qs = as_u8(src + 32);
  const std::array<int, 16> scales = scales_q3_k(as_u8(src + 96));
  const float d = load_half(src + 108);
  for (int half = 0; half < kHalves; ++half) {
    for (int run = 0; run < kRuns; ++run) {
      for (int part = 0; part < 2; ++part) {
        const auto index = static_cast<size_t>(scale_index(half, run, part));
        const float scale = d * static_cast<float>(scales[index]);
        const uint8_t* q = qs + half * kRun + part * 16;
        const uint8_t* high = mask + part * 16;
        const int bit = half * kRuns + run;
        float* y = out + value_index(half, run, part);
        for (int i = 0; i < 16; ++i) {
          const int value = ((q[i] >> (2 * run)) & 3) + 4 * ((high[i] >> bit) & 1) - 4;
          y[i] = scale * static_cast<float>(value);
        }
      }
    }
  }
}

// d, dmin, scales[12], qs[128];  y = (d scale) q - (dmin min), by 32 values
void dequantize_block_q4_k(const std::byte* src, float* out) {
  const ScalesAndMins s = scales_q4_k(src + 4, load_half(src), load_half(src + 2));
  const uint8_t* qs = as_u8(src + 16);
  for (size_t run = 0; run < 8; ++run) {
    const uint8_t* q = qs + run / 2 * kRun;
    const int shift = run % 2 == 0 ? 0 : 4;
    float* y = out + run * kRun;
    for (int i = 0; i < kRun; ++i) {
      y[i] = s.scale[run] * static_cast<float>((q[i] >> shift) & 15) - s.min[run];
    }
  }
}

// d, dmin, scales[12], qh[32], qs[128]; as Q4_K with a fifth bit, that of run r in bit r of qh
void dequantize_block_q5_k(const std::byte* src, float* out) {
  const ScalesAndMins s = scales_q4_k(src + 4, load_half(src), load_half(src + 2));
  const uint8_t* high = as_u8(src + 16);
  const uint8_t* qs = as_u8(src + 48);
  for (size_t run = 0; run < 8; ++run) {
    const uint8_t* q = qs + run / 2 * kRun;
    const int shift = run % 2 == 0 ? 0 : 4;
    float* y = out + run * kRun;
    for (int i = 0; i < kRun; ++i) {
      const int value = ((q[i] >> shift) & 15) | (((high[i] >> run) & 1) << 4);
      y[i] = s.scale[run] * static_cast<float>(value) - s.min[run];
    }
  }
}

// ql[128], qh[64], scales[16] signed, d;  y = (d scale) (q - 32)
void dequantize_block_q6_k(const std::byte* src, float* out) {
  const auto* scales = reinterpret_cast<const int8_t*>(src + 192);
  const float d = load_half(src + 208);
  for (int half = 0; half < kHalves; ++half) {
    for (int run = 0; run < kRuns; ++run) {
      for (int part = 0; part < 2; ++part) {
        const float scale = d * static_cast<float>(scales[scale_index(half, run, part)]);
        const uint8_t* low = as_u8(src) + half * 64 + (run % 2) * kRun + part * 16;
        const uint8_t* high = as_u8(src + 128) + half * kRun + part * 16;
        const int shift = run / 2 * 4;
        float* y = out + value_index(half, run, part);
        for (int i = 0; i < 16; ++i) {
          const int value = ((low[i] >> shift) & 15) | (((high[i] >> (2 * run)) & 3) << 4);
          y[i] = scale * static_cast<float>(value - 32);
        }
      }
    }
  }
}

}  // namespace qllm
