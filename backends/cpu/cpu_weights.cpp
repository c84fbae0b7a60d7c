#include "cpu_weights.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/math.h"
#include "fusion.h"
#include "speeds.h"
#include "weight_load.h"

namespace qllm::cpu {
namespace {

Shard make_shard(const PackedLayout& layout, int64_t n0, int64_t n) {
  const PackedLayout rows = rows_of(layout, n0, n);
  Shard shard;
  shard.n0 = n0;
  shard.n = n;
  for (const PackedRun& run : rows.runs) shard.pieces.push_back({run});
  for (const PackedRun& run : rows.second_terms) shard.second_terms.push_back({run});
  return shard;
}

void point(const PackedView& view, Piece* piece) {
  piece->w = view.codes;
  piece->scale = view.scale;
  piece->sum = view.sum;
}

/// Lays pieces from `next` on; returns where they end.
const std::byte* place(const std::byte* next, std::vector<Piece>* pieces) {
  for (Piece& piece : *pieces) {
    point(view_of(piece, next), &piece);
    next += piece.bytes();
  }
  return next;
}

/// Points each piece at its rows of the run that it is a part of.
void point_into(const std::vector<PackedRun>& runs, const std::vector<const std::byte*>& at,
                std::vector<Piece>* pieces) {
  size_t r = 0;
  for (Piece& piece : *pieces) {
    while (runs[r].end() <= piece.n0) ++r;
    point(from_row(runs[r], view_of(runs[r], at[r]), piece.n0), &piece);
  }
}

}  // namespace

int64_t Shard::bytes() const {
  int64_t sum = 0;
  for (const Piece& p : pieces) sum += p.bytes();
  for (const Piece& p : second_terms) sum += p.bytes();
  return sum;
}

bool maps_packed(MemoryMode memory, const Topology& topology) {
  if (memory != MemoryMode::automatic) return memory == MemoryMode::map;
  return topology.numa_nodes() <= 1;
}

CpuWeights::CpuWeights(const Graph& graph, const Scheme& scheme,
                       std::shared_ptr<const TensorSource> source, const LoadContext& context,
                       const ProgressFn& progress)
    : source_(std::move(source)), maps_(maps_packed(context.memory, *context.topology)) {
  std::vector<double> speeds = context.speeds;
  speeds.resize(static_cast<size_t>(context.pool->count()), 1.0);
  plan_shards(graph, scheme, speeds);
  place_shards(graph, context);
  vectors_.resize(graph.weights.size());
  for (size_t i = 0; i < graph.weights.size(); ++i) {
    const Weight& weight = graph.weights[i];
    if (weight.role == WeightRole::embedding) gathered_bytes_ += weight.k * 4;
    if (weight.role != WeightRole::vector) continue;
    vectors_[i].resize(static_cast<size_t>(round_up(weight.k, kBlockN)));
    read_weight_vector(*source_, weight, vectors_[i].data());
    bytes_ += weight.k * 4;
  }
  load_shards(graph, *source_, *context.vec, linears_, *context.pool, progress);
  if (context.shard_memory.lock && maps_) lock_mapped(graph, context.shard_memory.log);
}

std::string CpuWeights::memory() const {
  const bool any_packed = std::any_of(linears_.begin(), linears_.end(), [&](const auto& linear) {
    return !linear.shards.empty() && linear.in_file;
  });
  if (maps_ && any_packed) return "map";
  return memory_.on_hugetlb() ? "hugetlb" : "copy";
}

void CpuWeights::plan_shards(const Graph& graph, const Scheme& scheme,
                             const std::vector<double>& speeds) {
  linears_.resize(graph.weights.size());
  const std::vector<int64_t> units = shard_units(graph);
  for (size_t i = 0; i < graph.weights.size(); ++i) {
    const Weight& weight = graph.weights[i];
    if (weight.role != WeightRole::linear) continue;
    const PackedLinear* packed = source_->packed(weight.name);
    const PackedLayout layout =
        packed != nullptr ? packed->layout : packed_layout(scheme, weight, *source_);
    linears_[i].group = layout.group;
    linears_[i].k_padded = layout.k_padded;
    linears_[i].in_file = packed != nullptr && maps_;
    const int64_t total = round_up(weight.n, kBlockN);
    const int64_t count = ceil_div(total, units[i]);
    const std::vector<int64_t> bounds = share_out(count, speeds);
    for (size_t w = 0; w < speeds.size(); ++w) {
      const int64_t n0 = bounds[w] * units[i];
      const int64_t n = std::min(total, bounds[w + 1] * units[i]) - n0;
      linears_[i].shards.push_back(make_shard(layout, n0, n));
      bytes_ += linears_[i].shards.back().bytes();
    }
  }
}

void CpuWeights::place_shards(const Graph& graph, const LoadContext& context) {
  const auto workers = static_cast<size_t>(context.pool->count());
  std::vector<int64_t> bytes(workers);
  for (const ShardedLinear& linear : linears_) {
    for (size_t w = 0; w < linear.shards.size() && !linear.in_file; ++w) {
      bytes[w] += linear.shards[w].bytes();
    }
  }
  memory_ = ShardMemory(*context.topology, bytes, context.shard_memory);
  for (size_t w = 0; w < workers; ++w) {
    const std::byte* next = memory_.arena(w);
    for (size_t i = 0; i < linears_.size(); ++i) {
      if (linears_[i].shards.empty()) continue;
      Shard& shard = linears_[i].shards[w];
      if (linears_[i].in_file) {
        const PackedLinear& packed = *source_->packed(graph.weights[i].name);
        point_into(packed.layout.runs, packed.runs, &shard.pieces);
        point_into(packed.layout.second_terms, packed.second_terms, &shard.second_terms);
      } else {
        next = place(next, &shard.pieces);
        next = place(next, &shard.second_terms);
      }
    }
  }
}

void CpuWeights::lock_mapped(const Graph& graph, const LogFn& log) const {
  for (const Weight& weight : graph.weights) {
    const PackedLinear* packed = source_->packed(weight.name);
    if (packed == nullptr) continue;
    for (size_t r = 0; r < packed->runs.size(); ++r) {
      const auto bytes = static_cast<size_t>(packed->layout.runs[r].bytes());
      if (!lock_memory(packed->runs[r], bytes, log)) return;
    }
    for (size_t r = 0; r < packed->second_terms.size(); ++r) {
      const auto bytes = static_cast<size_t>(packed->layout.second_terms[r].bytes());
      if (!lock_memory(packed->second_terms[r], bytes, log)) return;
    }
  }
}

}  // namespace qllm::cpu
