#include "placement_model.h"

#include <doctest/doctest.h>

namespace {

using namespace qllm;
using namespace qllm::bench;

constexpr const char* kTwoSockets = "package:2 [numa(memory=1GiB)] core:4 pu:1";
constexpr const char* kEightNodes = "package:2 group:4 [numa(memory=1GiB)] core:2 pu:1";
constexpr StepWork kOneGb{1e9, 0};

std::unique_ptr<cpu::Topology> machine(const char* description, NumaPolicy policy, int node = -1) {
  cpu::TopologyOptions options;
  options.synthetic = description;
  options.numa = policy;
  options.node = node;
  return cpu::Topology::detect(options);
}

Prediction of(const char* description, NumaPolicy policy, const Bandwidths& b, int node = -1) {
  return predict(*machine(description, policy, node), policy, kOneGb, b);
}

TEST_CASE("placement model: split adds up the nodes, local has one of them") {
  Bandwidths b;
  b.node = 100;
  b.link = 20;
  const auto split = of(kTwoSockets, NumaPolicy::split, b);
  CHECK(split.tokens_per_s() == doctest::Approx(200));
  CHECK(split.remote_bytes == 0);
  CHECK(split.workers == 8);
  const auto local = of(kTwoSockets, NumaPolicy::local, b);
  CHECK(local.tokens_per_s() == doctest::Approx(100));
  CHECK(local.bound == "memory of node 0");
  CHECK(local.workers == 4);
  CHECK(of(kTwoSockets, NumaPolicy::replicate, b, 1).bound == "memory of node 1");
}

TEST_CASE("placement model: interleaving sends half over the link, a quarter each way") {
  Bandwidths b;
  b.node = 100;
  b.link = 20;
  const auto p = of(kTwoSockets, NumaPolicy::interleave, b);
  CHECK(p.remote_bytes == doctest::Approx(0.5e9));
  CHECK(p.tokens_per_s() == doctest::Approx(80));  // 0.25 GB at 20 GB/s
  CHECK(p.bound.rfind("link ", 0) == 0);
  b.link = 200;  // wide enough: memory binds as under split
  CHECK(of(kTwoSockets, NumaPolicy::interleave, b).tokens_per_s() == doctest::Approx(200));
}

TEST_CASE("placement model: eight nodes, links shared by the nodes of a package") {
  Bandwidths b;
  b.node = 50;
  b.link = 100;
  CHECK(of(kEightNodes, NumaPolicy::split, b).tokens_per_s() == doctest::Approx(400));
  CHECK(of(kEightNodes, NumaPolicy::local, b).tokens_per_s() == doctest::Approx(50));
  const auto p = of(kEightNodes, NumaPolicy::interleave, b);
  CHECK(p.remote_bytes == doctest::Approx(7e9 / 8));
  CHECK(p.tokens_per_s() == doctest::Approx(400));  // 0.25 GB at 100 GB/s each way: no less
  b.within = 5;                                     // 1/64 GB from node to node
  CHECK(of(kEightNodes, NumaPolicy::interleave, b).tokens_per_s() == doctest::Approx(320));
}

TEST_CASE("placement model: cores and barriers count") {
  Bandwidths b;
  b.node = 100;
  b.core = 10;
  CHECK(of(kTwoSockets, NumaPolicy::split, b).tokens_per_s() == doctest::Approx(80));
  CHECK(of(kTwoSockets, NumaPolicy::split, b).bound.rfind("cores", 0) == 0);
  b.core = 0;
  b.barrier_ns = 1000;
  b.dispatch_ns = 5000;
  const auto p =
      predict(*machine(kTwoSockets, NumaPolicy::split), NumaPolicy::split, {1e9, 100}, b);
  CHECK(p.seconds == doctest::Approx(5e-3 + 105e-6));
}

TEST_CASE("placement model: the machines of the documentation are what they say") {
  for (const KnownMachine& m : known_machines()) {
    CAPTURE(m.name);
    const auto topology = machine(m.topology, NumaPolicy::split);
    CHECK(topology->packages() == 2);
    CHECK(topology->numa_nodes() == 2 * m.nodes_of_socket);
    Bandwidths b;
    b.node = m.socket_gbps / m.nodes_of_socket;
    const auto p = predict(*topology, NumaPolicy::split, kOneGb, b);
    CHECK(p.tokens_per_s() == doctest::Approx(2 * m.socket_gbps));
  }
}

}  // namespace
