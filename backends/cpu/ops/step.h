// A resolved op: what every worker runs, in order, inside the one parallel region of a step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cpu_kv_storage.h"
#include "cpu_weights.h"
#include "graph/graph.h"
#include "kernels/vec.h"
#include "scratch.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// Where the keys and values of one sequence lie. Tokens [first, first + count) of the step stand
/// at its positions [past, past + count).
struct KvSlice {
  const CpuKvStorage* storage = nullptr;
  const int32_t* blocks = nullptr;  // of positions [0, past + count)
  int64_t past = 0;
  int64_t first = 0;
  int64_t count = 0;
  int64_t capacity = 0;

  std::byte* head(int64_t position, int64_t layer, int64_t kv_head) const noexcept {
    return storage->head(blocks[position / kKvBlockTokens], layer, kv_head);
  }
};

/// What one step (one Batch) is about; filled by the plan before the region opens.
struct StepState {
  int64_t n_tokens = 0;
  int64_t n_outputs = 0;
  std::span<const int32_t> outputs;  // output row -> token row
  std::vector<int64_t> position;     // [max_tokens]
  std::vector<int32_t> slice_of;     // [max_tokens]: index into slices
  std::vector<KvSlice> slices;       // one per sequence

  const KvSlice& slice(int64_t token) const {
    return slices[static_cast<size_t>(slice_of[static_cast<size_t>(token)])];
  }
  int64_t rows(Rows rows) const { return rows == Rows::tokens ? n_tokens : n_outputs; }
};

/// A float32 matrix [rows, width] in a buffer of leading dimension ld (a multiple of 64).
struct FloatBuffer {
  float* data = nullptr;
  int64_t width = 0;
  int64_t ld = 0;
  Rows rows = Rows::tokens;
  float* row(int64_t r) const { return data + r * ld; }
};

/// Quantized rows, padded to ld. group 0: u8 = q + 128, one scale per row. Else s8, and a scale and
/// the sum of the codes for each group of so many values.
struct QuantRows {
  uint8_t* data = nullptr;
  float* scale = nullptr;  // [rows, ldg]
  int32_t* sum = nullptr;  // [rows, ldg], groups only
  int64_t ld = 0;
  int64_t group = 0;

  int64_t ldg() const { return group == 0 ? 1 : ld / group; }
  uint8_t* row(int64_t r) const { return data + r * ld; }
};

/// So few rows and values are quantized by every worker for itself, into memory of its own: that
/// takes less time (16,384 values: 1 us) than sharing them out and meeting at a barrier.
inline constexpr int64_t kOwnRows = 16;
inline constexpr int64_t kOwnValues = 16384;
inline constexpr int64_t kOwnScales = kOwnValues / 32;  // and as many sums
inline constexpr int64_t kOwnBytes = kOwnValues + 8 * kOwnScales;
static_assert(kOwnScales >= kOwnRows);

/// A quantized value. Its maker and its readers agree by the number of rows on whether each worker
/// has its own copy or all share one.
struct QuantBuffer {
  QuantRows shared;
  std::byte* const* own = nullptr;  // [workers]: kOwnBytes: values, scales, sums; null: none
  int64_t width = 0;
  Rows rows = Rows::tokens;

  bool is_own(int64_t n_rows) const {
    return own != nullptr && n_rows <= kOwnRows && n_rows * shared.ld <= kOwnValues;
  }
  QuantRows view(int64_t n_rows, const Worker& worker) const {
    if (!is_own(n_rows)) return shared;
    std::byte* area = own[worker.index];
    auto* scale = reinterpret_cast<float*>(area + kOwnValues);
    return {reinterpret_cast<uint8_t*>(area), scale, reinterpret_cast<int32_t*>(scale + kOwnScales),
            shared.ld, shared.group};
  }
};

/// Runs on every worker. Allocates nothing.
class Step {
 public:
  virtual ~Step() = default;
  /// Called before the region opens; may grow scratch when a longer cache is seen for the first
  /// time.
  virtual void prepare(const StepState& state) { static_cast<void>(state); }
  virtual void run(const StepState& state, const Worker& worker) noexcept = 0;
  /// Whether the workers meet at a barrier behind it: not where what follows reads only what the
  /// same worker wrote. The same answer on every worker.
  virtual bool meets(const StepState& state) const {
    static_cast<void>(state);
    return true;
  }
};

/// Items [begin, end) of `count` that a worker takes: contiguous, sizes differ by at most one.
struct Share {
  int64_t begin = 0;
  int64_t end = 0;
};
inline Share share_of(int64_t count, const Worker& worker) {
  return {count * worker.index / worker.count, count * (worker.index + 1) / worker.count};
}

}  // namespace qllm::cpu
