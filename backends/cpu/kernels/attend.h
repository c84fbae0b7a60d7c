// Attention over the paged cache, one block of 64 tokens of one KV head at a time (kv_layout.h):
//
//   out[r] = sum_j softmax_j(cap(scale q[r] . k[j])) v[j]        cap(s) = softcap tanh(s / softcap)
//
// with running maxima, sums and weighted sums of v (online softmax: Milakov and Gimelshein,
// arXiv 1805.02867), so that the blocks of a sequence may be parted over workers and what they made
// merged. A tile of rows, query heads of the group and tokens alike, shares one read of a block.
// Decode is a tile of one token, prefill one of several.
//
// int8: q and the weights of v are quantized to 16 bits for the purpose, so that the products with
// the cached 8 bits are exact int32 sums and add next to no error to that of the cache itself.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dot.h"

namespace qllm::cpu {

/// The most rows of a tile.
inline constexpr int64_t kAttendRows = 32;

/// What a tile has found so far: merged with that of others, or made into `out`.
struct AttendPartial {
  float* max = nullptr;  // [rows]
  float* sum = nullptr;  // [rows]
  float* acc = nullptr;  // [rows, head_dim padded to 16]
};

/// Memory of a tile besides: q and q_scale stay between blocks, the rest is of the block. [rows] is
/// rounded up to 16 here and in AttendPartial.
struct AttendScratch {
  uint32_t* q = nullptr;        // [rows, head_dim padded]: coefficients of K's units
  uint32_t* weights = nullptr;  // [rows, 32]: coefficients of V's units, int8 only
  float* scores = nullptr;      // [rows, 64], then weights
  float* q_scale = nullptr;     // [rows]
  // The block's largest score and sum of weights; what brings both, and what was before, to the
  // running maximum.
  float* top = nullptr;           // [rows]
  float* sum = nullptr;           // [rows]
  float* weight_scale = nullptr;  // [rows]
  float* factor = nullptr;        // [rows]
  float* v_scale = nullptr;       // [64], int8 only
};

/// Row i is head (row0 + i) % group of token (row0 + i) / group of a slice. Token t stands at
/// `position` + t and sees the `window` tokens that end with itself (0: all).
struct AttendTile {
  const float* q = nullptr;  // the group's first head of the slice's first token
  float* out = nullptr;      // likewise
  int64_t ldq = 0;           // floats from token to token
  int64_t ldout = 0;
  int64_t group = 0;
  int64_t row0 = 0;
  int64_t rows = 0;  // 1 to kAttendRows
  int64_t head_dim = 0;
  int64_t position = 0;
  int64_t window = 0;
  float scale = 1.0F;
  float softcap = 0.0F;  // 0: none
  AttendScratch scratch;
  AttendPartial partial;

  bool begins_token(int64_t row) const { return (row0 + row) % group == 0; }
  int64_t last_seen(int64_t row) const { return position + (row0 + row) / group; }
  int64_t first_seen(int64_t row) const {
    const int64_t first = last_seen(row) + 1 - window;
    return window > 0 && first > 0 ? first : 0;
  }
};

struct AttendKernels {
  /// Prepares q and empties the partial.
  void (*begin)(const AttendTile& tile) noexcept;
  /// Adds the block at kv, whose first token stands at `first`, a multiple of 64. `next`: the block
  /// to prefetch meanwhile, or null.
  void (*block)(const AttendTile& tile, const std::byte* kv, const std::byte* next,
                int64_t first) noexcept;
  /// Adds what another worker found for the same rows.
  void (*merge)(const AttendTile& tile, const AttendPartial& other) noexcept;
  /// out = acc / sum
  void (*finish)(const AttendTile& tile) noexcept;
};

/// Both cache formats of a tier.
struct AttendTable {
  AttendKernels bf16;
  AttendKernels int8;
};

/// The table of a tier. Precondition: isa_available(isa). Of amx without AMX-BF16 the kernels for
/// bf16 are those of avx512vnni.
const AttendTable& attend_table(Isa isa);

}  // namespace qllm::cpu
