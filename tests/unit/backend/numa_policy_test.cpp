#include "backend/numa_policy.h"

#include <doctest/doctest.h>

#include "core/error.h"

TEST_CASE("numa policy: names there and back; empty is split; others are refused by name") {
  for (const char* name : {"split", "interleave", "local", "replicate"}) {
    CHECK(qllm::to_string(qllm::parse_numa_policy(name)) == name);
  }
  CHECK(qllm::parse_numa_policy("") == qllm::NumaPolicy::split);
  CHECK_THROWS_WITH_AS(qllm::parse_numa_policy("spread"),
                       "numa: expected split, interleave, local or replicate, found \"spread\"",
                       qllm::Error);
}
