#include "quant/packing.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace qllm {

TEST_CASE("packed_offset: is a bijection of the padded matrix onto its bytes") {
  const int64_t n_padded = 128;
  const int64_t k_padded = 192;
  std::vector<int> hits(static_cast<size_t>(packed_bytes(n_padded, k_padded)), 0);
  for (int64_t n = 0; n < n_padded; ++n) {
    for (int64_t k = 0; k < k_padded; ++k) {
      const int64_t at = packed_offset(n, k, k_padded);
      REQUIRE(at >= 0);
      REQUIRE(at < static_cast<int64_t>(hits.size()));
      ++hits[static_cast<size_t>(at)];
    }
  }
  for (const int hit : hits) REQUIRE(hit == 1);
}

TEST_CASE("packed_offset: a 64-byte line holds 16 outputs of 4 inputs") {
  for (int64_t n = 0; n < 16; ++n) {
    for (int64_t k = 0; k < 4; ++k) CHECK(packed_offset(n, k, 64) == n * 4 + k);
  }
  CHECK(packed_offset(16, 0, 64) == 64);     // the next 16 outputs: the next line
  CHECK(packed_offset(0, 4, 64) == 256);     // the next 4 inputs: 256 bytes on
  CHECK(packed_offset(0, 64, 128) == 4096);  // the next block of inputs
  CHECK(packed_offset(64, 0, 128) == 8192);  // the next block of outputs, behind all of K
}

TEST_CASE("packed_bytes: both sides are padded to blocks of 64") {
  CHECK(packed_bytes(1, 1) == 4096);
  CHECK(packed_bytes(64, 64) == 4096);
  CHECK(packed_bytes(65, 64) == 8192);
  CHECK(packed_bytes(7168, 28672) == int64_t{7168} * 28672);
}

}  // namespace qllm
