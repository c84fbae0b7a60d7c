// Weights as shards: each worker owns rows [n0, n0+n) of every linear, packed in its own memory,
// int8 per output or in groups.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "kernels/vec.h"
#include "placed_memory.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// Rows [n0, n0+n) of a linear that are stored in one format; n0 and n are multiples of 64.
struct Piece {
  WeightFormat format;
  int64_t n0 = 0;
  int64_t n = 0;
  int64_t k_padded = 0;    // as the format pads it
  std::byte* w = nullptr;  // row_int8: packing.h, n x k_padded; groups: quant/group.h, n/64 columns
  float* scale = nullptr;  // row_int8 only: [n]; 1 for padding rows
  int32_t* sum = nullptr;  // row_int8 only: [n]: sum_k w[n, k]

  int64_t end() const { return n0 + n; }
  bool in_groups() const { return format.kind == WeightFormat::Kind::groups; }
};

/// Rows [n0, n0+n) of a linear, in the order in which they lie in memory; multiples of 64.
struct Shard {
  int64_t n0 = 0;
  int64_t n = 0;
  std::vector<Piece> pieces;        // cover the rows
  std::vector<Piece> second_terms;  // behind them: int8 codes of what the first left, of some rows
};

struct ShardedLinear {
  std::vector<Shard> shards;  // one per worker, possibly of n = 0
  int64_t group = 0;          // of the activations that it wants; 0: one scale per token
  int64_t k_padded = 0;       // inputs, the most that any piece pads to
};

class CpuWeights final : public Weights {
 public:
  /// Reads, quantizes and packs in parallel, each worker its own shards into memory on its node.
  /// Throws what the source throws, out_of_memory, cancelled.
  CpuWeights(const Graph& graph, const Scheme& scheme, std::shared_ptr<const TensorSource> source,
             WorkerPool& pool, const Topology& topology, const VecKernels& vec, bool large_pages,
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
  void plan_shards(const Graph& graph, const Scheme& scheme, int workers);
  void allocate(const Topology& topology, bool large_pages);

  std::shared_ptr<const TensorSource> source_;
  std::vector<ShardedLinear> linears_;       // by WeightId
  std::vector<std::vector<float>> vectors_;  // by WeightId
  std::vector<PlacedBuffer> arenas_;         // one per worker
  int64_t bytes_ = 0;
  int64_t gathered_bytes_ = 0;
};

}  // namespace qllm::cpu
