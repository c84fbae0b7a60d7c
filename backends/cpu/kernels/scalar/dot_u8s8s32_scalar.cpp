// The plain loop: what the contract says, a line of 16 outputs x 4 inputs at a time.
#include "kernels/dot.h"

namespace qllm::cpu::scalar {
namespace {

constexpr int64_t kOutputs = 64;  // of a block
constexpr int64_t kRun = 256;     // bytes: 64 outputs x 4 inputs

/// Adds x[4] . w[o][4] to acc[o] of a block's 64 outputs.
inline void add_run(const uint8_t* x, const int8_t* w, int32_t* acc) {
  const int32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
  for (int64_t o = 0; o < kOutputs; ++o) {
    acc[o] += x0 * w[4 * o] + x1 * w[4 * o + 1] + x2 * w[4 * o + 2] + x3 * w[4 * o + 3];
  }
}

}  // namespace

void dot_u8s8s32_n64k4_plain(const DotArgs& args) noexcept {
  for (int64_t n = 0; n < args.n; n += kOutputs) {
    const int8_t* column = args.w + n * args.k;
    for (int64_t m = 0; m < args.m; ++m) {
      int32_t sum[kOutputs] = {};
      for (int64_t k = 0; k < args.k; k += 4) {
        add_run(args.x + m * args.ldx + k, column + k / 4 * kRun, sum);
      }
      int32_t* acc = args.acc + m * args.ldacc + n;
      for (int64_t o = 0; o < kOutputs; ++o) acc[o] = sum[o];
    }
  }
}

}  // namespace qllm::cpu::scalar
