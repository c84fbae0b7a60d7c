// The int8 ceiling of AMX-INT8. Its reads and floats are those of AVX-512.
#include "kernels/amx/tiles.h"
#include "kernels/ceiling.h"
#include "kernels/intrin.h"

namespace qllm::cpu::amx {
namespace {

constexpr int kSums = 6;  // tiles 0 to 5; tile 6 is x, 7 the weights
constexpr int64_t kTileWords = 256;

/// Six sums hide the latency of 52 cycles behind 6 x 16 (Intel SDM's optimization manual, AMX).
inline void six_dots() {
  dot_u8s8<0, 6, 7>();
  dot_u8s8<1, 6, 7>();
  dot_u8s8<2, 6, 7>();
  dot_u8s8<3, 6, 7>();
  dot_u8s8<4, 6, 7>();
  dot_u8s8<5, 6, 7>();
}

template <int kTile>
uint32_t total() {
  int32_t words[kTileWords];
  store_tile<kTile>(words, 64);
  uint32_t sum = 0;
  for (const int32_t word : words) sum += static_cast<uint32_t>(word);
  return sum;
}

}  // namespace

uint32_t peak_int8(int64_t rounds) noexcept {
  alignas(64) uint8_t x[1024];
  alignas(64) int8_t w[1024];
  for (int i = 0; i < 1024; ++i) {
    x[i] = kPeakX[i % 4];
    w[i] = kPeakW[i % 4];
  }
  TileConfig config;
  for (int i = 0; i < kSums + 2; ++i) config.set_rows(i, 16);
  load_config(config);  // zeroes all tiles
  load_tile<6>(x, 64);
  load_tile<7>(w, 64);
  for (int64_t r = 0; r < rounds; ++r) six_dots();
  const uint32_t sum = total<0>() + total<1>() + total<2>() + total<3>() + total<4>() + total<5>();
  release_tiles();
  return sum;
}

}  // namespace qllm::cpu::amx
