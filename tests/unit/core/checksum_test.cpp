#include "core/checksum.h"

#include <doctest/doctest.h>

#include <set>
#include <vector>

namespace {

using Checksum = uint64_t (*)(std::span<const std::byte>, uint64_t) noexcept;

void check_sees_all(Checksum sum) {
  std::vector<std::byte> bytes(77);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  for (const size_t length : {size_t{1}, size_t{8}, size_t{31}, size_t{32}, size_t{77}}) {
    const auto part = std::span(bytes).first(length);
    std::set<uint64_t> seen = {sum(part, 0)};
    for (size_t bit = 0; bit < 8 * length; ++bit) {
      part[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      seen.insert(sum(part, 0));
      part[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    }
    CHECK(seen.size() == 8 * length + 1);
    CHECK(sum(part, 1) != sum(part, 0));
  }
  const std::vector<std::byte> zeros(100);
  std::set<uint64_t> lengths;
  for (size_t n = 0; n <= zeros.size(); ++n) {
    lengths.insert(sum(std::span(zeros).first(n), 0));
  }
  CHECK(lengths.size() == zeros.size() + 1);
}

}  // namespace

TEST_CASE("checksum: sees every flipped bit, every length and the seed") {
  check_sees_all(qllm::checksum);
  check_sees_all(qllm::crc_checksum);
}
