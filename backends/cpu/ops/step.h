// A resolved op: what every worker runs, in order, inside the one parallel region of a step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cpu_weights.h"
#include "graph/graph.h"
#include "kernels/vec.h"
#include "kv_cache.h"
#include "scratch.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// What one step (one Batch) is about; filled by the plan before the region opens.
struct StepState {
  int64_t n_tokens = 0;
  int64_t n_outputs = 0;
  std::span<const int32_t> outputs;      // output row -> token row
  std::vector<int64_t> position;         // [max_tokens]
  std::vector<const CpuKvCache*> cache;  // [max_tokens]
  int64_t max_capacity = 0;              // of the caches in this step

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

/// Rows quantized per token: u8 = q + 128, padded to ld; one scale per row.
struct QuantRows {
  uint8_t* data = nullptr;
  float* scale = nullptr;
  int64_t ld = 0;
  uint8_t* row(int64_t r) const { return data + r * ld; }
};

/// So few rows and values are quantized by every worker for itself, into memory of its own: that
/// takes less time (16,384 values: 1 us) than sharing them out and meeting at a barrier.
inline constexpr int64_t kOwnRows = 16;
inline constexpr int64_t kOwnValues = 16384;

/// A quantized value. Its maker and its readers agree by the number of rows on whether each worker
/// has its own copy or all share one.
struct QuantBuffer {
  QuantRows shared;
  std::byte* const* own = nullptr;  // [workers]: kOwnValues of u8, then kOwnRows scales; null: none
  int64_t width = 0;
  Rows rows = Rows::tokens;

  bool is_own(int64_t n_rows) const {
    return own != nullptr && n_rows <= kOwnRows && n_rows * shared.ld <= kOwnValues;
  }
  QuantRows view(int64_t n_rows, const Worker& worker) const {
    if (!is_own(n_rows)) return shared;
    std::byte* area = own[worker.index];
    return {reinterpret_cast<uint8_t*>(area), reinterpret_cast<float*>(area + kOwnValues),
            shared.ld};
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
