// Blocks of 64 packed rows of a linear for the upload: out of a packed file, checked, or made anew.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/packed_linear.h"

namespace qllm::cuda {

/// Where one block of 64 rows goes: PackedRun::column_bytes() of codes; scale [64] and sum [64],
/// which runs in groups leave alone.
struct BlockMemory {
  std::byte* codes = nullptr;
  float* scale = nullptr;
  int32_t* sum = nullptr;
};

/// Reads, quantizes and packs the block at `row`; term 2 is what term 1 left of int8 rows. Throws
/// what the source throws.
void pack_block(const Weight& weight, const PackedRun& run, int term, const TensorSource& source,
                int64_t row, const BlockMemory& out);

/// Copies the block at `row` of run `r` (of the second terms where term is 2) and compares it with
/// its checksum. Throws bad_format.
void copy_block(const std::string& weight, const PackedLinear& linear, size_t r, int term,
                int64_t row, const BlockMemory& out);

}  // namespace qllm::cuda
