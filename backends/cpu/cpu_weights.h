// Weights as shards: each worker owns rows [n0, n0+n) of every linear, packed, int8 per output or
// in groups; in its own memory, or where a packed file is mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/packed_linear.h"
#include "kernels/vec.h"
#include "shard_memory.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// Rows of a linear that are stored in one format.
struct Piece : PackedRun {
  const std::byte* w = nullptr;  // row_int8: packing.h, n x k_padded; groups: n/64 block columns
  const float* scale = nullptr;  // row_int8 only: [n]; 1 for padding rows
  const int32_t* sum = nullptr;  // row_int8 only: [n]: sum_k w[n, k]
};

/// Rows [n0, n0+n) of a linear; multiples of 64. Pieces in the order in which they lie in memory.
struct Shard {
  int64_t n0 = 0;
  int64_t n = 0;
  std::vector<Piece> pieces;        // cover the rows
  std::vector<Piece> second_terms;  // int8 codes of what the first left, of some rows

  int64_t bytes() const;
};

struct ShardedLinear {
  std::vector<Shard> shards;  // one per worker, possibly of n = 0
  int64_t group = 0;          // of the activations that it wants; 0: one scale per token
  int64_t k_padded = 0;       // inputs, the most that any piece pads to
  bool in_file = false;       // packed there, and read where it is mapped
};

/// What a load needs of the backend; all outlive it.
struct LoadContext {
  WorkerPool* pool = nullptr;
  const Topology* topology = nullptr;
  const VecKernels* vec = nullptr;
  MemoryMode memory = MemoryMode::automatic;
  ShardMemoryOptions shard_memory;
  std::vector<double> speeds = {};  // of each worker; empty: all alike
};

/// Whether packed linears stay in the file.
bool maps_packed(MemoryMode memory, const Topology& topology);

class CpuWeights final : public Weights {
 public:
  /// Reads, quantizes and packs in parallel, each worker its own shards; or copies what the source
  /// has packed, compared with its checksums, or leaves it where it lies (then whoever mapped it
  /// compares).
  /// Throws what the source throws, bad_format (damage), io, out_of_memory, cancelled.
  CpuWeights(const Graph& graph, const Scheme& scheme, std::shared_ptr<const TensorSource> source,
             const LoadContext& context, const ProgressFn& progress);

  int64_t bytes() const override { return bytes_; }
  int64_t bytes_per_step() const override { return bytes_ + gathered_bytes_; }
  std::string memory() const override;

  const TensorSource& source() const { return *source_; }
  const ShardedLinear& linear(WeightId id) const { return linears_[static_cast<size_t>(id)]; }
  const std::vector<ShardedLinear>& linears() const { return linears_; }
  /// A vector weight, padded with zeros to a multiple of 64.
  const float* vector(WeightId id) const { return vectors_[static_cast<size_t>(id)].data(); }
  /// Of the packed bytes in the workers' own memory, how many lie on large pages; -1 where it
  /// cannot be told.
  int64_t large_page_bytes() const { return memory_.large_page_bytes(); }

 private:
  void plan_shards(const Graph& graph, const Scheme& scheme, const std::vector<double>& speeds);
  /// Lays each worker's shards of all linears in its memory.
  void place_shards(const Graph& graph, const LoadContext& context);
  void lock_mapped(const Graph& graph, const LogFn& log) const;

  std::shared_ptr<const TensorSource> source_;
  std::vector<ShardedLinear> linears_;       // by WeightId
  std::vector<std::vector<float>> vectors_;  // by WeightId
  ShardMemory memory_;
  bool maps_ = false;  // packed linears stay in the file
  int64_t bytes_ = 0;
  int64_t gathered_bytes_ = 0;
};

}  // namespace qllm::cpu
