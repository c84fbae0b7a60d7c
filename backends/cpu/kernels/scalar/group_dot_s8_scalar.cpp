// The plain loop over weights in groups: what the contract says.
#include "kernels/group_dot.h"
#include "quant/float_bits.h"

namespace qllm::cpu::scalar {
namespace {

constexpr int64_t kOutputs = 64;  // of a block column

float half_at(const std::byte* p, int64_t i) {
  uint16_t half;
  __builtin_memcpy(&half, p + 2 * i, sizeof half);
  return half_to_float(half);
}

/// One group of a block column: its codes, and its scales as floats.
struct Group {
  const std::byte* codes;
  float scale[kOutputs];
  float min[kOutputs];
};

Group read_group(const GroupFormat& format, const std::byte* column, int64_t g) {
  const bool k_quant = format.scales == GroupScales::k_quant;
  const int64_t per_record = format.record_k() / format.group;
  const std::byte* record = column + g / per_record * format.record_bytes();
  Group group{};
  const std::byte* sub = record + 256 + g % per_record * (128 + format.code_bytes());
  for (int64_t o = 0; o < kOutputs; ++o) {
    group.scale[o] = half_at(record, o);
    if (format.scales != GroupScales::f16) group.min[o] = half_at(record + 128, o);
    if (!k_quant) continue;
    group.scale[o] *= static_cast<float>(sub[o]);
    group.min[o] *= -static_cast<float>(sub[64 + o]);
  }
  if (k_quant)
    group.codes = sub + 128;
  else
    group.codes = record + (format.scales == GroupScales::f16_min ? 256 : 128);
  return group;
}

/// dot[o] += x . codes of one run of 256 bytes: four inputs of 8 bits, eight of 4.
void add_run(int bits, const int8_t* x, const std::byte* run, int32_t* dot) {
  for (int64_t o = 0; o < kOutputs; ++o) {
    for (int64_t i = 0; i < 4; ++i) {
      const auto code = static_cast<int32_t>(run[4 * o + i]);
      if (bits == 8)
        dot[o] += code * x[i];
      else
        dot[o] += (code & 15) * x[i] + (code >> 4) * x[4 + i];
    }
  }
}

}  // namespace

void group_dot_s8_n64_plain(const GroupDotArgs& args) noexcept {
  const GroupFormat& format = args.format;
  const int64_t run_inputs = format.bits == 4 ? 8 : 4;
  for (int64_t n = 0; n < args.n; n += kOutputs) {
    const std::byte* column = args.w + n / kOutputs * format.column_bytes(args.k);
    for (int64_t m = 0; m < args.m; ++m) {
      for (int64_t o = 0; o < kOutputs; ++o) args.y[m * args.ldy + n + o] = 0.0F;
    }
    for (int64_t g = 0; g < args.k / format.group; ++g) {
      const Group group = read_group(format, column, g);
      for (int64_t m = 0; m < args.m; ++m) {
        int32_t dot[kOutputs] = {};
        const int8_t* x = args.x + m * args.ldx + g * format.group;
        for (int64_t i = 0; i < format.group; i += run_inputs) {
          add_run(format.bits, x + i, group.codes + i / run_inputs * 256, dot);
        }
        const int32_t x_sum = args.x_sum[m * args.ldg + g];
        const float x_scale = args.x_scale[m * args.ldg + g];
        float* y = args.y + m * args.ldy + n;
        for (int64_t o = 0; o < kOutputs; ++o) {
          const auto exact = static_cast<float>(dot[o] - format.zero() * x_sum);
          y[o] += x_scale * (group.scale[o] * exact + group.min[o] * static_cast<float>(x_sum));
        }
      }
    }
  }
}

}  // namespace qllm::cpu::scalar
