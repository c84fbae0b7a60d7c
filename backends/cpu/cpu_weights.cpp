#include "cpu_weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <utility>

#include "backend/weight_block.h"
#include "core/error.h"
#include "core/math.h"
#include "fusion.h"
#include "quant/group_packing.h"
#include "quant/int8.h"
#include "quant/packing.h"

namespace qllm::cpu {
namespace {

/// Bytes of a piece in its arena; row_int8: packed weights, then scales, then sums. Each begins on
/// a line.
int64_t piece_bytes(const Piece& p) {
  if (p.in_groups()) return p.n / kBlockN * p.format.groups.column_bytes(p.k_padded);
  return p.n * p.k_padded + p.n * static_cast<int64_t>(sizeof(float) + sizeof(int32_t));
}

int64_t shard_bytes(const Shard& s) {
  int64_t bytes = 0;
  for (const Piece& p : s.pieces) bytes += piece_bytes(p);
  for (const Piece& p : s.second_terms) bytes += piece_bytes(p);
  return bytes;
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
        const Weight& weight = graph.weights[i];
        const Shard& shard = linears[i].shards[static_cast<size_t>(worker)];
        for (const Piece& piece : shard.pieces) {
          if (piece.in_groups())
            pack_groups(weight, piece, worker == 0);
          else
            pack_rows(weight, piece, 1, worker == 0);
        }
        for (const Piece& piece : shard.second_terms) pack_rows(weight, piece, 2, worker == 0);
      }
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      stop = true;
    }
  }

  void pack_rows(const Weight& weight, const Piece& piece, int term, bool reports) {
    std::vector<float> row(static_cast<size_t>(weight.k));
    std::vector<uint8_t> block(static_cast<size_t>(kBlockN * piece.k_padded));
    for (int64_t n = 0; n < piece.n && !stop; n += kBlockN) {
      for (int64_t r = 0; r < kBlockN; ++r) {
        uint8_t* q = block.data() + r * piece.k_padded;
        const int64_t source_row = piece.n0 + n + r;
        if (source_row < weight.n) {
          read_weight_rows(source, weight, source_row, 1, row.data());
          float scale = vec.quantize_u8(row.data(), weight.k, piece.k_padded, q);
          if (term == 2) {
            subtract_codes(q, kActivationZero, scale, weight.k, row.data());
            scale = vec.quantize_u8(row.data(), weight.k, piece.k_padded, q);
          }
          piece.scale[n + r] = scale;
        } else {
          std::memset(q, kActivationZero, static_cast<size_t>(piece.k_padded));
          piece.scale[n + r] = 1.0F;
        }
      }
      pack_block(block.data(), piece.k_padded,
                 reinterpret_cast<int8_t*>(piece.w) + n * piece.k_padded, piece.sum + n);
      report(kBlockN * piece.k_padded, reports);
    }
  }

  void pack_groups(const Weight& weight, const Piece& piece, bool reports) {
    const GroupFormat& format = piece.format.groups;
    const int64_t bytes = format.column_bytes(piece.k_padded);
    WeightBlock block;
    std::byte* column = piece.w;
    for (int64_t n = 0; n < piece.n && !stop; n += kBlockN, column += bytes) {
      read_weight_block(source, weight, format, piece.n0 + n, &block);
      for (int64_t c = 0; c < kBlockN; ++c) {
        pack_group_row(format, block[static_cast<size_t>(c)], piece.k_padded, c, column);
      }
      report(bytes, reports);
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

int64_t padded_k(const WeightFormat& format, int64_t k) {
  return format.kind == WeightFormat::Kind::groups ? format.groups.padded_k(k)
                                                   : round_up(k, kBlockK);
}

/// Adds the block at row n0 to the last piece, or to a new one where that ends or is another.
void add_block(const WeightFormat& format, int64_t n0, int64_t k, std::vector<Piece>* pieces) {
  if (pieces->empty() || pieces->back().format != format || pieces->back().end() != n0) {
    Piece piece;
    piece.format = format;
    piece.n0 = n0;
    piece.k_padded = padded_k(format, k);
    pieces->push_back(piece);
  }
  pieces->back().n += kBlockN;
}

/// Runs of blocks of one format; second terms apart, so that the first stay in one run.
void find_pieces(const Scheme& scheme, const Weight& weight, const TensorSource& source,
                 Shard* shard) {
  for (int64_t n = 0; n < shard->n; n += kBlockN) {
    WeightFormat format = block_format(scheme, weight, source, shard->n0 + n);
    const bool has_second_term = format.terms == 2;
    format.terms = 1;
    add_block(format, shard->n0 + n, weight.k, &shard->pieces);
    if (has_second_term) add_block(format, shard->n0 + n, weight.k, &shard->second_terms);
  }
}

/// What the blocks of a weight agree in.
void note_activations(const Scheme& scheme, const Weight& weight, const TensorSource& source,
                      ShardedLinear* linear) {
  for (int64_t n = 0; n < weight.n; n += kBlockN) {
    const WeightFormat format = block_format(scheme, weight, source, n);
    const int64_t group = format.kind == WeightFormat::Kind::groups ? format.groups.group : 0;
    require(n == 0 || group == linear->group, ErrorCode::internal,
            "weight {}: its blocks want activations in groups of {} and {}", weight.name,
            linear->group, group);
    linear->group = group;
    linear->k_padded = std::max(linear->k_padded, padded_k(format, weight.k));
  }
}

/// Lays a piece at `next`; returns where it ends.
std::byte* place(std::byte* next, Piece* piece) {
  piece->w = next;
  if (!piece->in_groups()) {
    piece->scale = reinterpret_cast<float*>(next + piece->n * piece->k_padded);
    piece->sum = reinterpret_cast<int32_t*>(piece->scale + piece->n);
  }
  return next + piece_bytes(*piece);
}

void run_load(void* context, const Worker& worker) noexcept {
  static_cast<Load*>(context)->run(worker.index);
}

}  // namespace

CpuWeights::CpuWeights(const Graph& graph, const Scheme& scheme,
                       std::shared_ptr<const TensorSource> source, WorkerPool& pool,
                       const Topology& topology, const VecKernels& vec, bool large_pages,
                       const ProgressFn& progress)
    : source_(std::move(source)) {
  plan_shards(graph, scheme, pool.count());
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

void CpuWeights::plan_shards(const Graph& graph, const Scheme& scheme, int workers) {
  linears_.resize(graph.weights.size());
  const std::vector<int64_t> units = shard_units(graph);
  for (size_t i = 0; i < graph.weights.size(); ++i) {
    const Weight& weight = graph.weights[i];
    if (weight.role != WeightRole::linear) continue;
    const int64_t total = round_up(weight.n, kBlockN);
    const int64_t count = ceil_div(total, units[i]);
    note_activations(scheme, weight, *source_, &linears_[i]);
    for (int64_t w = 0; w < workers; ++w) {
      Shard shard;
      shard.n0 = count * w / workers * units[i];
      shard.n = std::min(total, count * (w + 1) / workers * units[i]) - shard.n0;
      find_pieces(scheme, weight, *source_, &shard);
      bytes_ += shard_bytes(shard);
      linears_[i].shards.push_back(std::move(shard));
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
      for (Piece& piece : linear.shards[w].pieces) next = place(next, &piece);
      for (Piece& piece : linear.shards[w].second_terms) next = place(next, &piece);
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
