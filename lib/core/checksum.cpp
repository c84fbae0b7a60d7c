#include "core/checksum.h"

#include <bit>
#include <cstring>

namespace qllm {
namespace {

constexpr uint64_t kOdd = 0x9E3779B97F4A7C15U;  // 2^64 / golden ratio

uint64_t mix(uint64_t state, uint64_t word) {
  const uint64_t h = (state ^ word) * kOdd;
  return std::rotl(h ^ (h >> 32U), 29);  // the shift: of a product the top bit moves nothing else
}

uint64_t load(const std::byte* p, size_t bytes) {
  uint64_t word = 0;
  std::memcpy(&word, p, bytes);
  return word;
}

}  // namespace

uint64_t checksum(std::span<const std::byte> bytes, uint64_t seed) noexcept {
  uint64_t lanes[4] = {seed, seed + 1, seed + 2, seed + 3};  // four: the latency of multiply
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 32; left -= 32, p += 32) {
    for (size_t i = 0; i < 4; ++i) lanes[i] = mix(lanes[i], load(p + 8 * i, 8));
  }
  for (; left > 0; p += left < 8 ? left : 8, left -= left < 8 ? left : 8) {
    lanes[0] = mix(lanes[0], load(p, left < 8 ? left : 8));
  }
  uint64_t h = bytes.size() * kOdd;
  for (const uint64_t lane : lanes) h = mix(h, lane);
  return h ^ (h >> 32U);
}

}  // namespace qllm
