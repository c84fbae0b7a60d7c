// Attention of the query heads that share a KV head, in two passes over the cached tokens: scores
// and softmax, then the weighted sum of v. A block of k or v rows is widened from bf16 into L1 once
// and serves the whole group, so memory sees each row once. Loops over registers are unrolled by
// name: rolled, gcc 12 keeps the sums in memory.
#pragma once

#include <cstdint>
#include <xsimd/xsimd.hpp>

#include "kernels/vec.h"
#include "kernels/vec_math.h"

namespace qllm::cpu {

template <class Tier>
struct AttendImpl {
  using F = FloatBatch<Tier>;
  static constexpr int64_t kSize = static_cast<int64_t>(F::size);
  static constexpr int64_t kSpan = 256;  // elements of a head taken at a time
  static constexpr int64_t kRows = 16;   // rows widened at a time: 16 KiB of a 32 KiB L1

  struct alignas(64) Block {
    float row[kRows][kSpan];
  };

  static void attend(const AttendArgs& args) noexcept {
    const int64_t stride = (args.length + 15) / 16 * 16;
    for (int64_t d = 0; d < args.head_dim; d += kSpan) add_scores(args, stride, d);
    for (int64_t g = 0; g < args.group; ++g) softmax(args.scores + g * stride, args.length);
    for (int64_t g = 0; g < args.group; ++g) {
      for (int64_t d = 0; d < args.head_dim; ++d) args.out[g * args.ldq + d] = 0.0F;
    }
    for (int64_t d = 0; d < args.head_dim; d += kSpan) add_values(args, stride, d);
  }

 private:
  static int64_t span_of(const AttendArgs& args, int64_t d) {
    return args.head_dim - d < kSpan ? args.head_dim - d : kSpan;
  }

  /// Rows [j, j + kRows) of k or v, elements [d, d + span), zeros up to a whole batch and for rows
  /// past the end.
  static void widen(const uint16_t* const* blocks, const AttendArgs& args, int64_t j, int64_t d,
                    Block* block) {
    const int64_t span = span_of(args, d);
    const uint16_t* rows = blocks[j / 64] + j % 64 * args.ldkv + d;
    for (int64_t r = 0; r < kRows; ++r) {
      float* out = block->row[r];
      const bool present = j + r < args.length;
      const uint16_t* in = rows + r * args.ldkv;
      int64_t i = 0;
      if (present) {
        for (; i + kSize <= span; i += kSize) Tier::load_bf16(in + i).store_aligned(out + i);
        if (i < span) {
          uint16_t tail[kSize] = {};
          for (int64_t e = 0; i + e < span; ++e) tail[e] = in[i + e];
          Tier::load_bf16(tail).store_aligned(out + i);
          i += kSize;
        }
      }
      for (; i < span; i += kSize) F(0.0F).store_aligned(out + i);
    }
  }

  /// scores[g][j] = scale * q[g] . k[j]; the later spans of a long head add to the first.
  static void add_scores(const AttendArgs& args, int64_t stride, int64_t d) {
    Block block;
    const int64_t span = span_of(args, d);
    for (int64_t j = 0; j < args.length; j += kRows) {
      widen(args.k, args, j, d, &block);
      for (int64_t g = 0; g < args.group; ++g) {
        const float* q = args.q + g * args.ldq + d;
        float* out = args.scores + g * stride + j;
        for (int64_t r = 0; r < kRows; r += kSize) {
          F s = dot_rows(q, span, &block.row[r]) * F(args.scale);
          if (d > 0) s = s + F::load_unaligned(out + r);
          s.store_unaligned(out + r);
        }
      }
    }
  }

  /// q . row for kSize rows, one a lane.
  static F dot_rows(const float* q, int64_t span, const float (*rows)[kSpan]) {
    F sums[kSize];
#pragma GCC unroll 16
    for (int64_t r = 0; r < kSize; ++r) sums[r] = F(0.0F);
    for (int64_t i = 0; i < span; i += kSize) {
      const F v = load_partial<Tier>(q + i, span - i);
#pragma GCC unroll 16
      for (int64_t r = 0; r < kSize; ++r) {
        sums[r] = xsimd::fma(v, F::load_aligned(rows[r] + i), sums[r]);
      }
    }
    return xsimd::haddp(sums);
  }

  /// In place; the scratch past `length` becomes 0.
  static void softmax(float* s, int64_t length) {
    const int64_t padded = (length + 15) / 16 * 16;
    for (int64_t j = length; j < padded; ++j) s[j] = -__builtin_inff();
    F largest = F::load_unaligned(s);
    for (int64_t j = kSize; j < padded; j += kSize) {
      largest = xsimd::max(largest, F::load_unaligned(s + j));
    }
    float lanes[kSize];
    largest.store_unaligned(lanes);
    float top = lanes[0];
    for (const float lane : lanes) top = lane > top ? lane : top;
    F total(0.0F);
    for (int64_t j = 0; j < padded; j += kSize) {
      const F e = exp_batch<Tier>(F::load_unaligned(s + j) - F(top));
      e.store_unaligned(s + j);
      total = total + e;
    }
    total.store_unaligned(lanes);
    float sum = 0.0F;
    for (const float lane : lanes) sum += lane;
    const F inverse(1.0F / sum);
    for (int64_t j = 0; j < padded; j += kSize) {
      (F::load_unaligned(s + j) * inverse).store_unaligned(s + j);
    }
    for (int64_t j = length; j < padded; ++j) s[j] = 0.0F;
  }

  /// out[g][d..] += sum_j p[g][j] v[j][d..]
  static void add_values(const AttendArgs& args, int64_t stride, int64_t d) {
    Block block;
    const int64_t span = span_of(args, d);
    for (int64_t j = 0; j < args.length; j += kRows) {
      widen(args.v, args, j, d, &block);
      for (int64_t g = 0; g < args.group; ++g) {
        add_rows(args.scores + g * stride + j, block, span, args.out + g * args.ldq + d);
      }
    }
  }

  static void add_rows(const float* p, const Block& block, int64_t span, float* out) {
    constexpr int64_t kWide = 4;  // independent sums: the latency of fma
    int64_t i = 0;
    for (; i + kWide * kSize <= span; i += kWide * kSize) {
      F sums[kWide];
#pragma GCC unroll 4
      for (int64_t c = 0; c < kWide; ++c) sums[c] = F::load_unaligned(out + i + c * kSize);
      for (int64_t r = 0; r < kRows; ++r) {
        const F weight(p[r]);
#pragma GCC unroll 4
        for (int64_t c = 0; c < kWide; ++c) {
          sums[c] = xsimd::fma(weight, F::load_aligned(block.row[r] + i + c * kSize), sums[c]);
        }
      }
#pragma GCC unroll 4
      for (int64_t c = 0; c < kWide; ++c) sums[c].store_unaligned(out + i + c * kSize);
    }
    for (; i < span; i += kSize) {
      F sum = load_partial<Tier>(out + i, span - i);
      for (int64_t r = 0; r < kRows; ++r) {
        sum = xsimd::fma(F(p[r]), F::load_aligned(block.row[r] + i), sum);
      }
      float lanes[kSize];
      sum.store_unaligned(lanes);
      for (int64_t e = 0; e < kSize && i + e < span; ++e) out[i + e] = lanes[e];
    }
  }
};

}  // namespace qllm::cpu
