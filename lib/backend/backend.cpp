#include "backend/backend.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "core/math.h"

namespace qllm {
namespace {

constexpr std::array<std::string_view, 4> kMemoryModes = {"auto", "map", "copy", "hugetlb"};

}  // namespace

MemoryMode parse_memory_mode(std::string_view name) {
  const auto* it = std::find(kMemoryModes.begin(), kMemoryModes.end(), name);
  require(it != kMemoryModes.end(), ErrorCode::invalid_argument,
          "memory {}: expected auto, map, copy or hugetlb", name);
  return static_cast<MemoryMode>(it - kMemoryModes.begin());
}

std::string to_string(MemoryMode mode) {
  return std::string(kMemoryModes.at(static_cast<size_t>(mode)));
}

void Backend::pack(const Weight& weight, const PackedLayout& /*layout*/,
                   const TensorSource& /*source*/, const PackFn& /*take*/) {
  fail(ErrorCode::unsupported, "weight {}: this device has no packed form; the cpu has",
       weight.name);
}

void TensorSource::read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const {
  static_cast<void>(row);
  static_cast<void>(out);
  fail(ErrorCode::unsupported, "{}: does not lie on a grid of groups", tensor);
}

void read_weight_rows(const TensorSource& source, const Weight& weight, int64_t row, int64_t count,
                      float* out) {
  require(row >= 0 && count >= 0 && row <= weight.n && count <= weight.n - row,
          ErrorCode::invalid_argument, "weight {}: {} rows from row {} on asked of {}", weight.name,
          count, row, weight.n);
  std::memset(out, 0, static_cast<size_t>(count * weight.k) * sizeof(float));
  for (const RowSpan& span : weight.rows) {
    const int64_t begin = std::max(row, span.row);
    const int64_t end = std::min(row + count, span.row + span.count);
    if (begin >= end) continue;
    source.read_rows(span.tensor, span.tensor_row + (begin - span.row), end - begin,
                     out + (begin - row) * weight.k);
  }
}

void read_weight_vector(const TensorSource& source, const Weight& weight, float* out) {
  std::memset(out, 0, static_cast<size_t>(weight.k) * sizeof(float));
  for (const RowSpan& part : weight.rows) {
    require(part.row >= 0 && part.count >= 0 && part.row <= weight.k &&
                part.count <= weight.k - part.row,
            ErrorCode::internal, "weight {}: part {} ends outside of its {} elements", weight.name,
            part.tensor, weight.k);
    source.read_rows(part.tensor, part.tensor_row, 1, out + part.row);
  }
}

std::shared_ptr<KvPool> Backend::make_kv_pool(const KvShape& shape, const KvPoolOptions& options) {
  return std::make_shared<KvPool>(make_kv_storage(shape, options.blocks), shape, options);
}

std::shared_ptr<float[]> Backend::host_buffer(int64_t count) {
  return std::make_shared<float[]>(static_cast<size_t>(count));
}

std::unique_ptr<KvCache> Backend::make_kv_cache(const KvShape& shape, int64_t capacity) {
  const int64_t blocks = ceil_div(capacity, kKvBlockTokens);
  return std::make_unique<KvCache>(make_kv_pool(shape, {blocks, blocks}), capacity);
}

}  // namespace qllm
