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

/// The same quantized per token: u8 = q + 128, width padded to ld; one scale per row.
struct QuantBuffer {
  uint8_t* data = nullptr;
  float* scale = nullptr;
  int64_t width = 0;
  int64_t ld = 0;
  Rows rows = Rows::tokens;
  uint8_t* row(int64_t r) const { return data + r * ld; }
};

/// Runs on every worker; between two steps the plan puts a barrier. Allocates nothing.
class Step {
 public:
  virtual ~Step() = default;
  /// Called before the region opens; may grow scratch when a longer cache is seen for the first
  /// time.
  virtual void prepare(const StepState& state) { static_cast<void>(state); }
  virtual void run(const StepState& state, const Worker& worker) noexcept = 0;
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
