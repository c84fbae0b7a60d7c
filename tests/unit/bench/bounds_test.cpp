#include "bounds.h"

#include <doctest/doctest.h>

#include <cmath>

namespace {

using namespace qllm::bench;

constexpr Ceilings kMachine{32, 8};  // 250 operations a byte

TEST_CASE("bounds: the larger of the two least times binds") {
  const Work few{32e9, 8e12 / 2};  // 1 s of memory, 0.5 s of arithmetic
  CHECK(memory_seconds(few, kMachine) == doctest::Approx(1.0));
  CHECK(arithmetic_seconds(few, kMachine) == doctest::Approx(0.5));
  CHECK(bound_by_memory(few, kMachine));
  CHECK(percent_of_ceiling(few, kMachine, 2.0) == doctest::Approx(50));
  const Work many{32e9, 8e12 * 4};
  CHECK_FALSE(bound_by_memory(many, kMachine));
  CHECK(percent_of_ceiling(many, kMachine, 5.0) == doctest::Approx(80));
  CHECK(few.intensity() == doctest::Approx(125));
}

TEST_CASE("bounds: the turning point is where both least times are equal") {
  const Work weights{617e6, 0};
  const Work token{57344, 1.233e9};
  const double m = turning_point(weights, token, kMachine);
  const Work at{weights.bytes + m * token.bytes, m * token.operations};
  CHECK(memory_seconds(at, kMachine) == doctest::Approx(arithmetic_seconds(at, kMachine)));
  CHECK(bound_by_memory({weights.bytes + (m - 1) * token.bytes, (m - 1) * token.operations},
                        kMachine));
  CHECK_FALSE(bound_by_memory({weights.bytes + (m + 1) * token.bytes, (m + 1) * token.operations},
                              kMachine));
  // A token that moves more than it computes never gets there.
  CHECK(std::isinf(turning_point(weights, {1e9, 1}, kMachine)));
}

TEST_CASE("bounds: the measured turn is where flat and slope meet") {
  // 20 ms up to M = 16, 1 ms a token from M = 32 on.
  const std::vector<Timing> timings = {{1, 0.020}, {16, 0.020}, {32, 0.032}, {64, 0.064}};
  CHECK(measured_turning_point(timings) == doctest::Approx(20));
  CHECK(measured_turning_point({}) == 0.0);
}

}  // namespace
