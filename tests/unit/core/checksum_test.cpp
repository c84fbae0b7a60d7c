#include "core/checksum.h"

#include <doctest/doctest.h>

#include <set>
#include <vector>

TEST_CASE("checksum: sees every flipped bit, every length and the seed") {
  std::vector<std::byte> bytes(77);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  for (const size_t length : {size_t{1}, size_t{8}, size_t{31}, size_t{32}, size_t{77}}) {
    const auto part = std::span(bytes).first(length);
    std::set<uint64_t> seen = {qllm::checksum(part)};
    for (size_t bit = 0; bit < 8 * length; ++bit) {
      part[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      seen.insert(qllm::checksum(part));
      part[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    }
    CHECK(seen.size() == 8 * length + 1);
    CHECK(qllm::checksum(part, 1) != qllm::checksum(part));
  }
  const std::vector<std::byte> zeros(100);
  std::set<uint64_t> lengths;
  for (size_t n = 0; n <= zeros.size(); ++n) {
    lengths.insert(qllm::checksum(std::span(zeros).first(n)));
  }
  CHECK(lengths.size() == zeros.size() + 1);
}
