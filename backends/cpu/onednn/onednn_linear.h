// oneDNN's int8 matmul over the packed weights of a shard, without reorder: u8 x s8 -> s32 under
// the explicit tag BA16a64b4a, which is quant/packing.h. It picks AMX, AVX-512 VNNI or AVX2-VNNI
// itself.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/dot.h"

namespace qllm::cpu {

/// A shard's matmul: n and k multiples of 64, strides in elements.
struct OnednnShape {
  int64_t n = 0;
  int64_t k = 0;
  int64_t ldx = 0;
  int64_t ldacc = 0;
};

/// One per worker and shape: a call changes the object, so that it need not allocate handles.
class OnednnLinear {
 public:
  /// Prepares a primitive for each of `token_counts` (ascending), planned for one thread: a worker
  /// runs its shard alone, inside the team's parallel region. Takes milliseconds for each.
  /// Throws Error{internal} with oneDNN's status where it refuses, invalid_argument for a bad
  /// shape.
  OnednnLinear(const OnednnShape& shape, std::span<const int64_t> token_counts);
  ~OnednnLinear();
  OnednnLinear(OnednnLinear&&) noexcept;
  OnednnLinear& operator=(OnednnLinear&&) noexcept;

  /// The least prepared count >= m, or 0 where there is none. A call for m tokens reads and writes
  /// that many rows of x and acc.
  int64_t rows(int64_t m) const noexcept;

  /// What dot.h says, for the shape prepared and rows(args.m) rows. False where oneDNN refused, and
  /// then acc is not to be used. oneDNN itself makes a few small allocations in a call.
  bool run(const DotArgs& args) noexcept;

  /// oneDNN's name of what runs m tokens: "brg:avx512_core_amx", "ref:any", …
  std::string implementation(int64_t m) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// True where the tier has an instruction for u8 x s8 dots and oneDNN an implementation of its own
/// for the packed layout here; not its reference kernel, which is a thousand times slower.
bool onednn_accepts(Isa isa);

}  // namespace qllm::cpu
