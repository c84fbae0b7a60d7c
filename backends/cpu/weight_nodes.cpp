#include "weight_nodes.h"

namespace qllm::cpu {
namespace {

void add_pieces(const std::vector<Piece>& pieces, NodeBytes* to) {
  for (const Piece& piece : pieces) {
    add_pages(piece.w, static_cast<size_t>(piece.code_bytes()), to);
    if (piece.in_groups()) continue;
    const auto n = static_cast<size_t>(piece.n);
    add_pages(piece.scale, n * sizeof(float), to);
    add_pages(piece.sum, n * sizeof(int32_t), to);
  }
}

PlacementInfo::Node& entry(int node, std::vector<PlacementInfo::Node>* nodes) {
  for (PlacementInfo::Node& n : *nodes) {
    if (n.node == node) return n;
  }
  return nodes->emplace_back(PlacementInfo::Node{node, 0, 0});
}

}  // namespace

std::vector<NodeBytes> nodes_of_shards(const CpuWeights& weights, int workers) {
  std::vector<NodeBytes> shards(static_cast<size_t>(workers));
  for (const ShardedLinear& linear : weights.linears()) {
    for (size_t w = 0; w < linear.shards.size(); ++w) {
      add_pieces(linear.shards[w].pieces, &shards[w]);
      add_pieces(linear.shards[w].second_terms, &shards[w]);
    }
  }
  return shards;
}

PlacementInfo describe_placement(const std::vector<NodeBytes>& shards, const Topology& topology) {
  PlacementInfo info;
  info.known = true;
  info.bound = topology.binds();
  for (size_t w = 0; w < shards.size(); ++w) {
    const int own = topology.workers()[w].numa_node;
    info.known = info.known && shards[w].known;
    info.nowhere_bytes += shards[w].nowhere;
    info.remote_bytes += shards[w].beside(own);
    ++entry(own, &info.nodes).workers;
    for (const auto& [node, bytes] : shards[w].on) {
      entry(node, &info.nodes).weight_bytes += bytes;
      if (node == own) info.local_bytes += bytes;
    }
  }
  info.remote_bytes_per_step = info.remote_bytes;  // each byte is read once in a step
  return info;
}

}  // namespace qllm::cpu
