#include "block_packer.h"

#include <cstring>

#include "quant/group_packing.h"
#include "quant/int8.h"

namespace qllm::cpu {
namespace {

/// 64 quantized rows [64, k_padded] (u8 = q + 128) into packed blocks; sums per row.
void pack_codes(const uint8_t* q, int64_t k_padded, std::byte* packed, int32_t* sum) {
  for (int64_t r = 0; r < kBlockN; ++r) {
    const uint8_t* row = q + r * k_padded;
    int32_t total = 0;
    for (int64_t k = 0; k < k_padded; ++k) total += row[k];
    sum[r] = total - static_cast<int32_t>(kActivationZero * k_padded);
    for (int64_t k = 0; k < k_padded; k += 4) {
      uint32_t four;
      std::memcpy(&four, row + k, 4);
      four ^= 0x80808080U;  // u8 = q + 128 back to s8
      std::memcpy(packed + packed_offset(r, k, k_padded), &four, 4);
    }
  }
}

}  // namespace

void BlockPacker::pack(const Weight& weight, const PackedRun& run, int term, int64_t row,
                       const BlockTarget& out) {
  if (run.in_groups()) {
    pack_groups(weight, run, row, out.codes);
  } else {
    pack_rows(weight, run, term, row, out);
  }
}

void BlockPacker::pack_rows(const Weight& weight, const PackedRun& run, int term, int64_t row,
                            const BlockTarget& out) {
  row_.resize(static_cast<size_t>(weight.k));
  codes_.resize(static_cast<size_t>(kBlockN * run.k_padded));
  for (int64_t r = 0; r < kBlockN; ++r) {
    uint8_t* q = codes_.data() + r * run.k_padded;
    if (row + r >= weight.n) {
      std::memset(q, kActivationZero, static_cast<size_t>(run.k_padded));
      out.scale[r] = 1.0F;
      continue;
    }
    read_weight_rows(source_, weight, row + r, 1, row_.data());
    float scale = vec_.quantize_u8(row_.data(), weight.k, run.k_padded, q);
    if (term == 2) {
      subtract_codes(q, kActivationZero, scale, weight.k, row_.data());
      scale = vec_.quantize_u8(row_.data(), weight.k, run.k_padded, q);
    }
    out.scale[r] = scale;
  }
  pack_codes(codes_.data(), run.k_padded, out.codes, out.sum);
}

void BlockPacker::pack_groups(const Weight& weight, const PackedRun& run, int64_t row,
                              std::byte* column) {
  const GroupFormat& format = run.format.groups;
  read_weight_block(source_, weight, format, row, &groups_);
  for (int64_t c = 0; c < kBlockN; ++c) {
    pack_group_row(format, groups_[static_cast<size_t>(c)], run.k_padded, c, column);
  }
}

}  // namespace qllm::cpu
