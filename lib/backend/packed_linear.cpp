#include "backend/packed_linear.h"

#include <algorithm>

#include "core/checksum.h"
#include "core/error.h"

namespace qllm {
namespace {

constexpr int64_t kRowBytes = sizeof(float) + sizeof(int32_t);  // scale and sum

int64_t padded_k(const WeightFormat& format, int64_t k) {
  return format.kind == WeightFormat::Kind::groups ? format.groups.padded_k(k)
                                                   : round_up(k, kBlockK);
}

/// Adds the block at row n0 to the last run, or to a new one where that ends or is another.
void add_block(const WeightFormat& format, int64_t n0, int64_t k, std::vector<PackedRun>* runs) {
  if (runs->empty() || runs->back().format != format || runs->back().end() != n0) {
    runs->push_back({format, n0, 0, padded_k(format, k)});
  }
  runs->back().n += kBlockN;
}

std::vector<PackedRun> cut(const std::vector<PackedRun>& runs, int64_t n0, int64_t n) {
  std::vector<PackedRun> out;
  for (PackedRun run : runs) {
    const int64_t end = std::min(run.end(), n0 + n);
    run.n0 = std::max(run.n0, n0);
    run.n = end - run.n0;
    if (run.n > 0) out.push_back(run);
  }
  return out;
}

template <typename T>
std::span<const std::byte> bytes_of(const T* p, int64_t count) {
  return std::as_bytes(std::span(p, static_cast<size_t>(count)));
}

}  // namespace

int64_t PackedRun::column_bytes() const {
  return in_groups() ? format.groups.column_bytes(k_padded) : kBlockN * k_padded;
}

int64_t PackedRun::bytes() const { return code_bytes() + (in_groups() ? 0 : n * kRowBytes); }

int64_t PackedLayout::bytes() const {
  int64_t bytes = 0;
  for (const PackedRun& run : runs) bytes += run.bytes();
  for (const PackedRun& run : second_terms) bytes += run.bytes();
  return bytes;
}

PackedLayout packed_layout(const Scheme& scheme, const Weight& weight, const TensorSource& source) {
  PackedLayout layout;
  for (int64_t n = 0; n < weight.n; n += kBlockN) {
    WeightFormat format = block_format(scheme, weight, source, n);
    const bool has_second_term = format.terms == 2;
    format.terms = 1;
    const int64_t group = format.kind == WeightFormat::Kind::groups ? format.groups.group : 0;
    require(n == 0 || group == layout.group, ErrorCode::internal,
            "weight {}: its blocks want activations in groups of {} and {}", weight.name,
            layout.group, group);
    layout.group = group;
    layout.k_padded = std::max(layout.k_padded, padded_k(format, weight.k));
    add_block(format, n, weight.k, &layout.runs);
    if (has_second_term) add_block(format, n, weight.k, &layout.second_terms);
  }
  return layout;
}

PackedLayout rows_of(const PackedLayout& layout, int64_t n0, int64_t n) {
  return {cut(layout.runs, n0, n), cut(layout.second_terms, n0, n), layout.group, layout.k_padded};
}

PackedView view_of(const PackedRun& run, const std::byte* at) {
  PackedView view;
  view.codes = at;
  if (run.in_groups()) return view;
  view.scale = reinterpret_cast<const float*>(at + run.code_bytes());
  view.sum = reinterpret_cast<const int32_t*>(view.scale + run.n);
  return view;
}

PackedView from_row(const PackedRun& run, const PackedView& view, int64_t n0) {
  const int64_t rows = n0 - run.n0;
  PackedView out;
  out.codes = view.codes + rows / kBlockN * run.column_bytes();
  if (run.in_groups()) return out;
  out.scale = view.scale + rows;
  out.sum = view.sum + rows;
  return out;
}

uint64_t block_checksum(const PackedRun& run, const PackedView& block, int64_t row, uint64_t seed) {
  uint64_t check =
      crc_checksum(bytes_of(block.codes, run.column_bytes()), seed + static_cast<uint64_t>(row));
  if (run.in_groups()) return check;
  check = crc_checksum(bytes_of(block.scale, kBlockN), check);
  return crc_checksum(bytes_of(block.sum, kBlockN), check);
}

std::string damaged_block(const PackedLinear& linear, const std::string& name, int64_t row,
                          uint64_t found, uint64_t expected) {
  return fmt::format(
      "{}: tensor {}: damaged: rows {} to {} have the checksum {:016x}, expected {:016x}",
      linear.origin, name, row, row + kBlockN - 1, found, expected);
}

}  // namespace qllm
