#include "bandwidth.h"

#include <doctest/doctest.h>

#include "core/error.h"

namespace {

using namespace qllm::cpu;

TEST_CASE("read bandwidth: a figure that a machine can have, again and again") {
  const auto topology = Topology::detect({});
  WorkerPool pool(*topology);
  ReadBandwidth bandwidth(pool, *topology, int64_t{64} << 20);
  CHECK(bandwidth.bytes() >= int64_t{64} << 20);
  for (int i = 0; i < 2; ++i) {
    const double gbps = bandwidth.measure();
    CHECK(gbps > 0.01);
    CHECK(gbps < 20000.0);
  }
}

TEST_CASE("read bandwidth: too little to miss the caches is refused") {
  const auto topology = Topology::detect({1, "", ""});
  WorkerPool pool(*topology);
  CHECK_THROWS_AS(measure_read_gbps(pool, *topology, 0), qllm::Error);
  CHECK_THROWS_AS(measure_read_gbps(pool, *topology, (int64_t{64} << 20) - 1), qllm::Error);
}

}  // namespace
