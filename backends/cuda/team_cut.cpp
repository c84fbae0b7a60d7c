#include "team_cut.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "core/error.h"
#include "core/math.h"
#include "graph/liveness.h"
#include "quant/packing.h"

namespace qllm::cuda {
namespace {

template <class... Args>
void can(bool ok, fmt::format_string<Args...> text, Args&&... args) {
  if (!ok) fail(ErrorCode::unsupported, text, std::forward<Args>(args)...);
}

/// `n` columns over ranks, in blocks of 64.
Deal deal_blocks(int64_t n, int64_t ranks, const std::string& name) {
  const Deal deal{kBlockN, ceil_div(n, kBlockN), ranks};
  can(deal.units >= ranks, "{} has {} outputs, {} blocks of 64 for {} GPUs", name, n, deal.units,
      ranks);
  return deal;
}

class Cutter {
 public:
  Cutter(const Graph& graph, int ranks) : graph_(graph), ranks_(ranks) {
    out_.gathers.resize(graph.ops.size());
    stays_.resize(graph.ops.size());
    RankCut rank{graph, {}};
    rank.shares.resize(graph.weights.size());
    out_.ranks.assign(static_cast<size_t>(ranks), rank);
  }

  TeamCut cut() {
    for (op_ = 0; op_ < graph_.ops.size(); ++op_) std::visit(*this, graph_.ops[op_]);
    for (op_ = 0; op_ < graph_.ops.size(); ++op_) {
      const auto* linear = std::get_if<LinearOp>(&graph_.ops[op_]);
      if (linear != nullptr && !stays_[op_]) gather_linear(*linear);
    }
    return std::move(out_);
  }

  template <class Other>
  void operator()(const Other& /*op*/) {}  // all ranks do it alike

  void operator()(const RopeKvWriteOp& op) {
    const Deal heads = deal_heads(op.n_kv_heads, op.head_dim, ranks_);
    can(out_.n_kv_heads == 0 || out_.n_kv_heads == op.n_kv_heads, "layers differ in KV heads");
    out_.n_kv_heads = op.n_kv_heads;
    const LinearOp& linear = linear_that_stays(op.qkv);
    can(readers(op.q) == 1, "queries are read twice");
    const int64_t group = op.n_heads / op.n_kv_heads, dim = op.head_dim;
    const int64_t keys = op.n_heads * dim, values = keys + op.n_kv_heads * dim;
    for (int r = 0; r < ranks_; ++r) {
      const int64_t begin = heads.begin(r), end = heads.end(r), mine = end - begin;
      share(linear, r,
            {{begin * group * dim, end * group * dim},
             {keys + begin * dim, keys + end * dim},
             {values + begin * dim, values + end * dim}});
      auto& own = std::get<RopeKvWriteOp>(rank(r).graph.ops[op_]);
      own.n_heads = static_cast<int32_t>(mine * group);
      own.n_kv_heads = static_cast<int32_t>(mine);
      width(r, op.qkv) = mine * (group + 2) * dim;
      width(r, op.q) = mine * group * dim;
    }
  }

  void operator()(const AttentionOp& op) {
    const Deal heads = deal_heads(op.n_kv_heads, op.head_dim, ranks_);
    const int64_t group = op.n_heads / op.n_kv_heads;
    out_.gathers[op_] = {heads.unit * group * op.head_dim, heads.units, ranks_};
    for (int r = 0; r < ranks_; ++r) {
      const int64_t mine = heads.end(r) - heads.begin(r);
      auto& own = std::get<AttentionOp>(rank(r).graph.ops[op_]);
      own.n_heads = static_cast<int32_t>(mine * group);
      own.n_kv_heads = static_cast<int32_t>(mine);
    }
  }

  void operator()(const SwiGluOp& op) {
    const LinearOp& linear = linear_that_stays(op.gate_up);
    const Deal deal =
        deal_blocks(graph_.value(op.out).width, ranks_, graph_.weight(linear.weight).name);
    out_.gathers[op_] = deal;
    for (int r = 0; r < ranks_; ++r) {
      share(linear, r, {{2 * deal.begin(r), 2 * deal.end(r)}});
      width(r, op.gate_up) = 2 * (deal.end(r) - deal.begin(r));
    }
  }

 private:
  RankCut& rank(int r) { return out_.ranks[static_cast<size_t>(r)]; }
  int64_t& width(int r, ValueId id) { return rank(r).graph.values[static_cast<size_t>(id)].width; }

  int64_t readers(ValueId id) const {
    int64_t count = id == graph_.logits ? 1 : 0;
    for (const Op& op : graph_.ops) {
      for (const ValueId in : inputs_of(op)) count += in == id ? 1 : 0;
    }
    return count;
  }

  /// The linear that makes `id` for the op at hand alone: each rank keeps what it makes.
  const LinearOp& linear_that_stays(ValueId id) {
    for (size_t i = 0; i < op_; ++i) {
      const auto* linear = std::get_if<LinearOp>(&graph_.ops[i]);
      if (linear == nullptr || linear->out != id) continue;
      can(readers(id) == 1 && linear->residual == kNone, "{} has other readers",
          graph_.value(id).name);
      stays_[i] = true;
      return *linear;
    }
    fail(ErrorCode::unsupported, "{} comes from no linear", graph_.value(id).name);
  }

  void gather_linear(const LinearOp& op) {
    const Weight& weight = graph_.weight(op.weight);
    const Deal deal = deal_blocks(weight.n, ranks_, weight.name);
    out_.gathers[op_] = deal;
    for (int r = 0; r < ranks_; ++r) {
      share(op, r, {{deal.begin(r), std::min(deal.end(r), weight.n)}});
    }
  }

  void share(const LinearOp& op, int r, const RowShare& rows) {
    for (const WeightId id : {op.weight, op.bias}) {
      if (id == kNone) continue;
      RowShare& known = rank(r).shares[static_cast<size_t>(id)];
      can(known.empty() || known == rows, "{} is used twice", graph_.weight(id).name);
      known = rows;
    }
  }

  const Graph& graph_;
  int ranks_;
  size_t op_ = 0;
  std::vector<bool> stays_;  // of linears: their result is not gathered
  TeamCut out_;
};

}  // namespace

Deal deal_heads(int64_t n_kv_heads, int64_t head_dim, int64_t ranks) {
  const int64_t together = kBlockN / std::gcd(head_dim, kBlockN);
  const Deal deal{together, n_kv_heads / together, ranks};
  can(n_kv_heads % together == 0 && deal.units >= ranks,
      "{} KV heads of {} are {} whole blocks of 64 for {} GPUs", n_kv_heads, head_dim, deal.units,
      ranks);
  return deal;
}

TeamCut cut_graph(const Graph& graph, int ranks) { return Cutter(graph, ranks).cut(); }

}  // namespace qllm::cuda
