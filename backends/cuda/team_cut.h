// How a graph is cut over several GPUs ("ranks"): every linear by its outputs, attention by KV
// heads. No sum crosses devices, so results are those of one, bit for bit.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"
#include "kernels/deal.h"
#include "row_share.h"

namespace qllm::cuda {

/// KV heads over ranks, so many together that their elements are whole blocks of 64. Throws
/// unsupported where that leaves a rank without.
Deal deal_heads(int64_t n_kv_heads, int64_t head_dim, int64_t ranks);

/// What one rank computes.
struct RankCut {
  Graph graph;                   // with its heads, and its widths of values that stay on it
  std::vector<RowShare> shares;  // of each weight; empty: all
};

struct TeamCut {
  std::vector<RankCut> ranks;
  std::vector<Deal> gathers;  // of each op: the columns of its result that each rank makes, which
                              // all ranks then have; unit 0: nothing is gathered
  int64_t n_kv_heads = 0;     // of all ranks; 0: no attention
};

/// Throws unsupported, saying what cannot be cut into so many.
TeamCut cut_graph(const Graph& graph, int ranks);

}  // namespace qllm::cuda
