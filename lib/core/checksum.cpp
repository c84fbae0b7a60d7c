#include "core/checksum.h"

#include <array>
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

#if defined(__SSE4_2__)
uint64_t crc_step(uint64_t crc, uint64_t word) { return __builtin_ia32_crc32di(crc, word); }
#else
constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) {
      table[i] = table[i] >> 1U ^ (0U - (table[i] & 1U) & 0x82F63B78U);  // reflected
    }
  }
  return table;
}

uint64_t crc_step(uint64_t crc, uint64_t word) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  word ^= crc;
  auto rest = uint64_t{0};
  for (int byte = 0; byte < 8; ++byte, word >>= 8U) {
    rest = kTable[(word ^ rest) & 0xFFU] ^ (rest & 0xFFFFFFFFU) >> 8U;
  }
  return rest;
}
#endif

}  // namespace

uint64_t crc_checksum(std::span<const std::byte> bytes, uint64_t seed) noexcept {
  // Four: an instruction has three cycles of latency and comes every cycle.
  uint64_t lanes[4] = {seed & 0xFFFFFFFFU, seed >> 32U, 1, 2};
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 32; left -= 32, p += 32) {
    for (size_t i = 0; i < 4; ++i) lanes[i] = crc_step(lanes[i], load(p + 8 * i, 8));
  }
  for (size_t i = 0; left > 0; ++i, p += left < 8 ? left : 8, left -= left < 8 ? left : 8) {
    lanes[i] = crc_step(lanes[i], load(p, left < 8 ? left : 8));
  }
  return checksum(std::as_bytes(std::span(lanes)), seed ^ bytes.size() * kOdd);
}

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
