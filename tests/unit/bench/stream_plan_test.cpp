#include "stream_plan.h"

#include <doctest/doctest.h>

#include <set>
#include <tuple>

namespace {

using namespace qllm::bench;
using qllm::cpu::Prefetch;
using qllm::cpu::Topology;

TEST_CASE("stream plan: every combination once; quick keeps the widest loads") {
  const std::vector<ReadVariant> all = read_variants({8, 16, 32}, false);
  std::set<std::tuple<int, int, Prefetch, int64_t>> distinct;
  for (const ReadVariant& v : all) distinct.emplace(v.width, v.streams, v.prefetch, v.ahead);
  CHECK(all.size() == 3 * 4 * (1 + 2 * 5));
  CHECK(distinct.size() == all.size());
  for (const ReadVariant& v : read_variants({8, 16, 32}, true)) CHECK(v.width == 32);
  CHECK(read_variants({8, 16, 32}, true).size() == 4);
  CHECK(read_variants({}, true).empty());
}

TEST_CASE("stream plan: prefetches by name") {
  CHECK(prefetch_name({32, 1, Prefetch::none, 0}) == "none");
  CHECK(prefetch_name({32, 1, Prefetch::t0, 2048}) == "T0 2 KiB");
  CHECK(prefetch_name({32, 1, Prefetch::nta, 512}) == "NTA 512 B");
}

TEST_CASE("stream plan: workers of each node read the memory of each node") {
  const auto topology = Topology::detect({0, "", "numa:3 core:2 pu:1"});
  const std::vector<NodePair> pairs = node_pairs(topology->workers());
  REQUIRE(pairs.size() == 9);
  for (size_t i = 0; i < pairs.size(); ++i) {
    CHECK(pairs[i].worker_node == static_cast<int>(i / 3));
    CHECK(pairs[i].memory_node == static_cast<int>(i % 3));
    REQUIRE(pairs[i].workers.size() == 2);
    for (const int worker : pairs[i].workers) {
      CHECK(topology->workers()[static_cast<size_t>(worker)].numa_node == pairs[i].worker_node);
    }
  }
  CHECK(node_pairs({{0, 0}}).size() == 1);
}

TEST_CASE("stream plan: parts are whole pages and leave no byte of them out") {
  for (const int count : {1, 2, 3, 7}) {
    CHECK(part_begin(int64_t{2} << 20, 0, count) == 0);
    CHECK(part_begin(int64_t{2} << 20, count, count) == int64_t{2} << 20);
    for (int k = 0; k < count; ++k) CHECK(part_begin(int64_t{2} << 20, k, count) % 4096 == 0);
  }
}

}  // namespace
