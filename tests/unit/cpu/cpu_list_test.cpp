#include "cpu_list.h"

#include <doctest/doctest.h>

#include "core/error.h"

namespace {

using qllm::cpu::parse_cpu_list;

TEST_CASE("cpu list: single CPUs and ranges, sorted, each once") {
  CHECK(parse_cpu_list("0") == std::vector<int>{0});
  CHECK(parse_cpu_list("0-3,8") == std::vector<int>{0, 1, 2, 3, 8});
  CHECK(parse_cpu_list("8,2-3,3,2") == std::vector<int>{2, 3, 8});
  CHECK(parse_cpu_list("5-5") == std::vector<int>{5});
  CHECK(parse_cpu_list("65535") == std::vector<int>{65535});
}

TEST_CASE("cpu list: refuses what is no list, naming the item") {
  for (const char* bad : {"",
                          ",",
                          "1,",
                          ",1",
                          "1,,2",
                          "a",
                          "1-",
                          "-1",
                          "1--2",
                          "3-1",
                          " 1",
                          "1 ",
                          "1-2-3",
                          "0x1",
                          "+1",
                          "1.5",
                          "65536",
                          "0-65536",
                          "99999999999999999999",
                          "0-18446744073709551616",
                          "1;2",
                          "1\n"}) {
    CAPTURE(bad);
    try {
      parse_cpu_list(bad);
      FAIL("accepted");
    } catch (const qllm::Error& e) {
      CHECK(e.code() == qllm::ErrorCode::invalid_argument);
    }
  }
  CHECK_THROWS_WITH(parse_cpu_list("0,7-5"),
                    "CPU list: expected a range A-B with A <= B, found \"7-5\"");
}

}  // namespace
