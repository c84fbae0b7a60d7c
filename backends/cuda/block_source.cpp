#include "block_source.h"

#include <cstring>
#include <vector>

#include "backend/weight_block.h"
#include "core/error.h"
#include "quant/group_packing.h"
#include "quant/int8.h"

namespace qllm::cuda {
namespace {

void pack_int8(const Weight& weight, const PackedRun& run, int term, const TensorSource& source,
               int64_t row, const BlockMemory& out) {
  std::vector<float> values(static_cast<size_t>(weight.k));
  std::vector<int8_t> q(static_cast<size_t>(weight.k));
  std::memset(out.codes, 0, static_cast<size_t>(run.column_bytes()));
  for (int64_t r = 0; r < kBlockN; ++r) {
    out.scale[r] = 1.0F;
    out.sum[r] = 0;
    if (row + r >= weight.n) continue;
    read_weight_rows(source, weight, row + r, 1, values.data());
    out.scale[r] = quantize_row_s8(values.data(), weight.k, q.data());
    if (term == 2) {
      subtract_codes(q.data(), 0, out.scale[r], weight.k, values.data());
      out.scale[r] = quantize_row_s8(values.data(), weight.k, q.data());
    }
    out.sum[r] =
        pack_row_s8(q.data(), weight.k, r, run.k_padded, reinterpret_cast<int8_t*>(out.codes));
  }
}

}  // namespace

void pack_block(const Weight& weight, const PackedRun& run, int term, const TensorSource& source,
                int64_t row, const BlockMemory& out) {
  if (!run.in_groups()) return pack_int8(weight, run, term, source, row, out);
  const GroupFormat& format = run.format.groups;
  WeightBlock block;
  read_weight_block(source, weight, format, row, &block);
  for (int64_t c = 0; c < kBlockN; ++c) {
    pack_group_row(format, block[static_cast<size_t>(c)], run.k_padded, c, out.codes);
  }
}

void copy_block(const std::string& weight, const PackedLinear& linear, size_t r, int term,
                int64_t row, const BlockMemory& out) {
  const PackedRun& run = term == 2 ? linear.layout.second_terms[r] : linear.layout.runs[r];
  const std::byte* at = term == 2 ? linear.second_terms[r] : linear.runs[r];
  const auto& checks = term == 2 ? linear.second_checks : linear.checks;
  const PackedView block = from_row(run, view_of(run, at), row);
  std::memcpy(out.codes, block.codes, static_cast<size_t>(run.column_bytes()));
  if (!run.in_groups()) {
    std::memcpy(out.scale, block.scale, kBlockN * sizeof(float));
    std::memcpy(out.sum, block.sum, kBlockN * sizeof(int32_t));
  }
  if (checks.empty()) return;
  const uint64_t expected = checks[r][static_cast<size_t>((row - run.n0) / kBlockN)];
  // What is used is what is compared: the copy.
  const uint64_t found = block_checksum(run, {out.codes, out.scale, out.sum}, row, linear.seed);
  require(found == expected, ErrorCode::bad_format, "{}",
          damaged_block(linear, weight, row, found, expected));
}

}  // namespace qllm::cuda
