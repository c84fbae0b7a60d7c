// Stands before backends/cpu/kernels/amx/tiles.h when the tests compile the AMX kernels for
// emulation: the same functions over tiles in memory. Where the machine would raise an exception
// (no configuration, shapes that disagree, SDM volume 2) the program ends and says why.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/intrin.h"

namespace qllm::cpu::amx {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set_shape(int i, int64_t n, int64_t bytes) {
    row_bytes[i] = static_cast<uint16_t>(bytes);
    rows[i] = static_cast<uint8_t>(n);
  }
  void set_rows(int i, int64_t n) { set_shape(i, n, 64); }
};
static_assert(sizeof(TileConfig) == 64);

struct Tiles {
  bool loaded = false;
  TileConfig config;
  uint8_t data[8][16][64] = {};
};
inline thread_local Tiles tiles;

inline void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "emulated tiles: %s\n", what);
  std::abort();
}

inline void expect_tile(int i) {
  expect(i >= 0 && i < 8, "tiles are 0 to 7");
  expect(tiles.loaded, "no configuration is loaded");
  expect(tiles.config.rows[i] > 0, "the configuration leaves the tile out");
}

inline void load_config(const TileConfig& config) {
  expect(reinterpret_cast<uintptr_t>(&config) % 64 == 0, "ldtilecfg of unaligned memory");
  expect(config.palette == 1 && config.start_row == 0, "palette 1 from row 0 was expected");
  for (const uint8_t v : config.reserved) expect(v == 0, "reserved bytes must be 0");
  for (int i = 0; i < 16; ++i) {
    expect(config.rows[i] <= 16 && config.row_bytes[i] <= 64, "a tile is 16 rows of 64 bytes");
    expect((config.rows[i] == 0) == (config.row_bytes[i] == 0), "rows without bytes");
    expect(i < 8 || config.rows[i] == 0, "there are eight tiles");
  }
  tiles = Tiles{true, config, {}};
}

inline void release_tiles() {
  expect(tiles.loaded, "tilerelease without a configuration");
  tiles = Tiles{};
}

template <int kTile>
inline void zero_tile() {
  expect_tile(kTile);
  std::memset(tiles.data[kTile], 0, sizeof tiles.data[kTile]);
}

template <int kTile>
inline void load_tile(const void* base, int64_t stride) {
  zero_tile<kTile>();
  for (int r = 0; r < tiles.config.rows[kTile]; ++r) {
    std::memcpy(tiles.data[kTile][r], static_cast<const char*>(base) + r * stride,
                tiles.config.row_bytes[kTile]);
  }
}

template <int kTile>
inline void store_tile(void* base, int64_t stride) {
  expect_tile(kTile);
  for (int r = 0; r < tiles.config.rows[kTile]; ++r) {
    std::memcpy(static_cast<char*>(base) + r * stride, tiles.data[kTile][r],
                tiles.config.row_bytes[kTile]);
  }
}

/// The shapes of sums, x and w agree.
template <int kSum, int kX, int kW>
inline void expect_factors() {
  static_assert(kSum != kX && kSum != kW && kX != kW);
  for (const int i : {kSum, kX, kW}) expect_tile(i);
  const TileConfig& c = tiles.config;
  expect(c.rows[kSum] == c.rows[kX], "tdp: rows of the sums and of x differ");
  expect(c.row_bytes[kX] == 4 * c.rows[kW], "tdp: depths of x and w differ");
  expect(c.row_bytes[kSum] == c.row_bytes[kW], "tdp: outputs of the sums and of w differ");
}

/// Calls f(sum, row of x, column of w) for each 4 bytes of the sums; w from row to row 64 bytes.
template <int kSum, int kX, int kW, typename Sum, typename F>
inline void for_each_sum(F f) {
  expect_factors<kSum, kX, kW>();
  for (int m = 0; m < tiles.config.rows[kSum]; ++m) {
    for (int n = 0; n < tiles.config.row_bytes[kSum] / 4; ++n) {
      Sum sum;
      std::memcpy(&sum, tiles.data[kSum][m] + 4 * n, sizeof sum);
      sum = f(sum, tiles.data[kX][m], tiles.data[kW][0] + 4 * n);
      std::memcpy(tiles.data[kSum][m] + 4 * n, &sum, sizeof sum);
    }
  }
}

template <int kSum, int kX, int kW, typename X>
inline void dot_bytes() {
  const int depth = tiles.config.row_bytes[kX];
  for_each_sum<kSum, kX, kW, uint32_t>([&](uint32_t sum, const uint8_t* x, const uint8_t* w) {
    for (int k = 0; k < depth; ++k) {
      const int product = static_cast<X>(x[k]) * static_cast<int8_t>(w[k / 4 * 64 + k % 4]);
      sum += static_cast<uint32_t>(product);
    }
    return sum;
  });
}

template <int kSum, int kX, int kW>
inline void dot_u8s8() {
  dot_bytes<kSum, kX, kW, uint8_t>();
}

template <int kSum, int kX, int kW>
inline void dot_s8s8() {
  dot_bytes<kSum, kX, kW, int8_t>();
}

/// Subnormal numbers count as zero.
inline float flushed(float x) { return x > -1.17549435e-38F && x < 1.17549435e-38F ? 0.0F : x; }

inline float bf16_at(const uint8_t* p) {
  const uint32_t bits = static_cast<uint32_t>(p[0]) << 16 | static_cast<uint32_t>(p[1]) << 24;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

template <int kSum, int kX, int kW>
inline void dot_bf16() {
  const int depth = tiles.config.row_bytes[kX] / 4;
  for_each_sum<kSum, kX, kW, float>([&](float sum, const uint8_t* x, const uint8_t* w) {
    float parts[2] = {0.0F, 0.0F};
    for (int k = 0; k < depth; ++k) {
      for (int j = 0; j < 2; ++j) {
        const float product = bf16_at(x + 4 * k + 2 * j) * bf16_at(w + 64 * k + 2 * j);
        parts[j] = flushed(parts[j] + product);
      }
    }
    return flushed(flushed(sum) + flushed(parts[0] + parts[1]));
  });
}

}  // namespace qllm::cpu::amx
