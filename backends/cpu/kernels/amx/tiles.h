// The tile instructions of AMX-INT8 and AMX-BF16, as inline assembly with full operands: of gcc
// 12's intrinsics ldtilecfg declares 8 of its 64 bytes and tileloadd no memory, so what a kernel
// wrote just before might never reach memory. The tests put another header of this name before this
// one, which computes the same in software and ends the program on any misuse
// (tests/support/emulated).
//
// Intel SDM volume 1, chapter 18, and volume 2, LDTILECFG, TILELOADD, TDPBUSD, TDPBSSD, TDPBF16PS,
// TILESTORED, TILEZERO, TILERELEASE. A tile holds up to 16 rows of up to 64 bytes; there are eight.
// The configuration and the tiles belong to a thread: a kernel loads its configuration first and
// releases it last. The machine must allow it: isa_available(Isa::amx).
//
// `volatile` keeps the instructions in order among themselves; that order is the only thing that
// ties a load of a tile to its use, since compilers do not know these registers.
#pragma once

#include <cstdint>

namespace qllm::cpu::amx {

/// The operand of ldtilecfg, palette 1.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of tiles 0 to 7; the rest stays 0
  uint8_t rows[16] = {};

  /// Tile `i` holds `n` rows of `bytes`, a multiple of 4.
  void set_shape(int i, int64_t n, int64_t bytes) {
    row_bytes[i] = static_cast<uint16_t>(bytes);
    rows[i] = static_cast<uint8_t>(n);
  }
  void set_rows(int i, int64_t n) { set_shape(i, n, 64); }
};
static_assert(sizeof(TileConfig) == 64);

/// Zeroes all tiles.
inline void load_config(const TileConfig& config) {
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

inline void release_tiles() { __asm__ volatile("tilerelease" : :); }

template <int kTile>
inline void zero_tile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

/// Row r from base + r * stride, for the rows of the configuration. stride in bytes.
template <int kTile>
inline void load_tile(const void* base, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(base), "r"(stride), "i"(kTile)
                   : "memory");
}

template <int kTile>
inline void store_tile(void* base, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(base), "r"(stride), "i"(kTile)
                   : "memory");
}

/// s32 sum[m][n] += sum_{k, j < 4} u8 x[m][4k + j] * s8 w[k][4n + j], exact modulo 2^32.
template <int kSum, int kX, int kW>
inline void dot_u8s8() {
  static_assert(kSum != kX && kSum != kW && kX != kW);
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kW));
}

/// The same with s8 x.
template <int kSum, int kX, int kW>
inline void dot_s8s8() {
  static_assert(kSum != kX && kSum != kW && kX != kW);
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kW));
}

/// f32 sum[m][n] += sum_{k, j < 2} bf16 x[m][2k + j] * bf16 w[k][2n + j]: the products of even and
/// of odd j each added up in the order of k, then both, then to the sum. Rounds to nearest even
/// whatever MXCSR says, and takes and makes zeros for subnormal numbers. Needs AMX-BF16.
template <int kSum, int kX, int kW>
inline void dot_bf16() {
  static_assert(kSum != kX && kSum != kW && kX != kW);
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kX), "i"(kW));
}

}  // namespace qllm::cpu::amx
