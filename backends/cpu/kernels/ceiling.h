// What a machine can do at best: loops that only read, only move or only multiply and add. The
// ceilings of `qllm bench` and of the programs in bench/ are measured with them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/dot.h"

namespace qllm::cpu {

/// How a read is told in advance.
enum class Prefetch : uint8_t { none, t0, nta };

/// Reads `bytes` (a multiple of 256) at p once, in `streams` (1, 2, 4 or 8) equal parts by turns,
/// 256 bytes each; a remainder is read last.
struct ReadArgs {
  const void* p = nullptr;
  int64_t bytes = 0;
  int streams = 1;
  Prefetch prefetch = Prefetch::none;
  int64_t ahead = 0;  // bytes ahead of the load, within a stream
};

struct ReadKernel {
  Isa isa;
  int width;  // bytes of a load
  /// Returns the sum of all 32-bit words, so that no read can be left out. (8-byte loads: the sum
  /// of the low and the high halves of the sum of 64-bit words, which is the same but for carries.)
  uint32_t (*run)(const ReadArgs& args) noexcept;
};

/// copy: a[i] = b[i];  triad: a[i] = b[i] + 3 c[i].  `bytes` of each array, a multiple of 64;
/// arrays aligned to 64. Ordinary stores first read the line that they write (write-allocate);
/// non-temporal ones do not.
struct MoveArgs {
  float* a = nullptr;
  const float* b = nullptr;
  const float* c = nullptr;  // triad
  int64_t bytes = 0;
  bool non_temporal = false;
};

struct MoveKernel {
  Isa isa;
  int width;  // bytes of a load or store
  void (*copy)(const MoveArgs& args) noexcept;
  void (*triad)(const MoveArgs& args) noexcept;
};

/// Multiply-adds on registers alone. Every operand repeats the values below, so that the sum tells
/// how many there were. (Not inline: a symbol that tiers share would be a weak one.)
constexpr uint8_t kPeakX[4] = {3, 250, 7, 129};
constexpr int8_t kPeakW[4] = {5, -7, 111, -13};

enum class PeakType : uint8_t { int8, f32 };

struct PeakKernel {
  std::string_view name;  // "avx2 vpmaddwd+vpaddd"
  Isa isa;
  PeakType type;
  int64_t ops;  // of a round; a multiply-add is two
  /// int8: the sum of all products modulo 2^32, rounds * ops/2 * mean(kPeakX[i] * kPeakW[i]).
  /// f32: the sum of the accumulators, each the number of its multiply-adds (exact below 2^24
  /// rounds), modulo 2^32.
  uint32_t (*run)(int64_t rounds) noexcept;
};

/// Those that were built, worst tier first, whether or not this machine can run them.
std::span<const ReadKernel> read_kernels();
std::span<const MoveKernel> move_kernels();
std::span<const PeakKernel> peak_kernels();

/// The widest of the best tier that this machine has.
const ReadKernel& best_read_kernel();

}  // namespace qllm::cpu
