// Weights as W8A8 shards: each worker owns rows [n0, n0+n) of every linear, packed in its own
// memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "kernels/vec.h"
#include "placed_memory.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// Rows [n0, n0+n) of a linear; n and k_padded are multiples of 64.
struct Shard {
  int64_t n0 = 0;
  int64_t n = 0;
  int64_t k_padded = 0;
  int8_t* w = nullptr;     // packing.h, n x k_padded
  float* scale = nullptr;  // [n]; 1 for padding rows
  int32_t* sum = nullptr;  // [n]: sum_k w[n, k]
};

struct ShardedLinear {
  std::vector<Shard> shards;  // one per worker, possibly of n = 0
};

class CpuWeights final : public Weights {
 public:
  /// Reads, quantizes and packs in parallel, each worker its own shards into memory on its node.
  /// Throws what the source throws, out_of_memory, cancelled.
  CpuWeights(const Graph& graph, std::shared_ptr<const TensorSource> source, WorkerPool& pool,
             const Topology& topology, const VecKernels& vec, bool large_pages,
             const ProgressFn& progress);

  int64_t bytes() const override { return bytes_; }
  int64_t bytes_per_step() const override { return bytes_ + gathered_bytes_; }

  const TensorSource& source() const { return *source_; }
  const ShardedLinear& linear(WeightId id) const { return linears_[static_cast<size_t>(id)]; }
  /// A vector weight, padded with zeros to a multiple of 64.
  const float* vector(WeightId id) const { return vectors_[static_cast<size_t>(id)].data(); }
  /// Of the packed bytes, how many lie on large pages; -1 where it cannot be told.
  int64_t large_page_bytes() const;

 private:
  void plan_shards(const Graph& graph, int workers);
  void allocate(const Topology& topology, bool large_pages);

  std::shared_ptr<const TensorSource> source_;
  std::vector<ShardedLinear> linears_;       // by WeightId
  std::vector<std::vector<float>> vectors_;  // by WeightId
  std::vector<PlacedBuffer> arenas_;         // one per worker
  int64_t bytes_ = 0;
  int64_t gathered_bytes_ = 0;
};

}  // namespace qllm::cpu
