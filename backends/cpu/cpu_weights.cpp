#include "cpu_weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "core/math.h"
#include "fusion.h"
#include "quant/packing.h"

namespace qllm::cpu {
namespace {

/// Bytes of a shard in its arena: packed weights, then scales, then sums; each begins on a line.
int64_t shard_bytes(const Shard& s) {
  return s.n * s.k_padded + s.n * static_cast<int64_t>(sizeof(float) + sizeof(int32_t));
}

/// 64 quantized rows [64, k_padded] (u8 = q + 128) into packed blocks; sums per row.
void pack_block(const uint8_t* q, int64_t k_padded, int8_t* packed, int32_t* sum) {
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

/// State of one parallel load, shared by the workers.
struct Load {
  const Graph& graph;
  const TensorSource& source;
  const VecKernels& vec;
  const ProgressFn& progress;
  std::vector<ShardedLinear>& linears;
  int64_t total_bytes;
  std::atomic<int64_t> done_bytes{0};
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void run(int worker) noexcept {
    try {
      for (size_t i = 0; i < linears.size() && !stop; ++i) {
        if (linears[i].shards.empty()) continue;
        pack(graph.weights[i], linears[i].shards[static_cast<size_t>(worker)], worker == 0);
      }
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      stop = true;
    }
  }

  void pack(const Weight& weight, const Shard& shard, bool reports) {
    std::vector<float> row(static_cast<size_t>(weight.k));
    std::vector<uint8_t> block(static_cast<size_t>(kBlockN * shard.k_padded));
    for (int64_t n = 0; n < shard.n && !stop; n += kBlockN) {
      for (int64_t r = 0; r < kBlockN; ++r) {
        uint8_t* q = block.data() + r * shard.k_padded;
        const int64_t source_row = shard.n0 + n + r;
        if (source_row < weight.n) {
          read_weight_rows(source, weight, source_row, 1, row.data());
          shard.scale[n + r] = vec.quantize_u8(row.data(), weight.k, shard.k_padded, q);
        } else {
          std::memset(q, kActivationZero, static_cast<size_t>(shard.k_padded));
          shard.scale[n + r] = 1.0F;
        }
      }
      pack_block(block.data(), shard.k_padded, shard.w + n * shard.k_padded, shard.sum + n);
      report(kBlockN * shard.k_padded, reports);
    }
  }

  void report(int64_t bytes, bool reports) {
    const int64_t done = done_bytes += bytes;
    if (!reports || !progress) return;
    const double fraction = static_cast<double>(done) / static_cast<double>(total_bytes);
    require(progress("loading", std::min(fraction, 1.0)), ErrorCode::cancelled,
            "loading: cancelled");
  }
};

void run_load(void* context, const Worker& worker) noexcept {
  static_cast<Load*>(context)->run(worker.index);
}

}  // namespace

CpuWeights::CpuWeights(const Graph& graph, std::shared_ptr<const TensorSource> source,
                       WorkerPool& pool, const Topology& topology, const VecKernels& vec,
                       bool large_pages, const ProgressFn& progress)
    : source_(std::move(source)) {
  plan_shards(graph, pool.count());
  allocate(topology, large_pages);
  vectors_.resize(graph.weights.size());
  for (size_t i = 0; i < graph.weights.size(); ++i) {
    const Weight& weight = graph.weights[i];
    if (weight.role == WeightRole::embedding) gathered_bytes_ += weight.k * 4;
    if (weight.role != WeightRole::vector) continue;
    vectors_[i].resize(static_cast<size_t>(round_up(weight.k, kBlockN)));
    read_weight_vector(*source_, weight, vectors_[i].data());
    bytes_ += weight.k * 4;
  }
  Load load{graph, *source_, vec, progress, linears_, std::max<int64_t>(bytes_, 1), {}, {}, {}, {}};
  pool.drive([&] { pool.run(run_load, &load); });
  if (load.error) std::rethrow_exception(load.error);
}

void CpuWeights::plan_shards(const Graph& graph, int workers) {
  linears_.resize(graph.weights.size());
  const std::vector<int64_t> units = shard_units(graph);
  for (size_t i = 0; i < graph.weights.size(); ++i) {
    const Weight& weight = graph.weights[i];
    if (weight.role != WeightRole::linear) continue;
    const int64_t total = round_up(weight.n, kBlockN);
    const int64_t count = ceil_div(total, units[i]);
    for (int64_t w = 0; w < workers; ++w) {
      Shard shard;
      shard.n0 = count * w / workers * units[i];
      shard.n = std::min(total, count * (w + 1) / workers * units[i]) - shard.n0;
      shard.k_padded = round_up(weight.k, kBlockK);
      bytes_ += shard_bytes(shard);
      linears_[i].shards.push_back(shard);
    }
  }
}

void CpuWeights::allocate(const Topology& topology, bool large_pages) {
  const std::vector<WorkerSlot>& slots = topology.workers();
  for (size_t w = 0; w < slots.size(); ++w) {
    int64_t total = 0;
    for (const ShardedLinear& linear : linears_) {
      if (!linear.shards.empty()) total += shard_bytes(linear.shards[w]);
    }
    PlacementOptions options;
    options.large_pages = large_pages;
    options.topology = &topology;
    options.slot = slots[w];
    arenas_.emplace_back(static_cast<size_t>(std::max<int64_t>(total, 1)), options);
    auto* next = arenas_.back().as<std::byte>();
    for (ShardedLinear& linear : linears_) {
      if (linear.shards.empty()) continue;
      Shard& shard = linear.shards[w];
      shard.w = reinterpret_cast<int8_t*>(next);
      shard.scale = reinterpret_cast<float*>(next + shard.n * shard.k_padded);
      shard.sum = reinterpret_cast<int32_t*>(shard.scale + shard.n);
      next += shard_bytes(shard);
    }
  }
}

int64_t CpuWeights::large_page_bytes() const {
  int64_t total = 0;
  for (const PlacedBuffer& arena : arenas_) {
    const int64_t bytes = cpu::large_page_bytes(arena.data(), arena.bytes());
    if (bytes < 0) return -1;
    total += bytes;
  }
  return total;
}

}  // namespace qllm::cpu
