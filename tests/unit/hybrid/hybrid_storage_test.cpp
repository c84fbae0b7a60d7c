#include "hybrid/hybrid_storage.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "support/kv_model.h"

namespace {

using namespace qllm;
using namespace qllm::test;
using hybrid::HybridStorage;

struct Two {
  std::unique_ptr<HybridStorage> both;
  DigestStorage* host;
  DigestStorage* device;

  explicit Two(int64_t blocks) {
    auto first = std::make_unique<DigestStorage>(blocks);
    auto second = std::make_unique<DigestStorage>(blocks);
    host = first.get();
    device = second.get();
    both = std::make_unique<HybridStorage>(std::move(first), 3, std::move(second), 5);
  }
};

}  // namespace

TEST_CASE("hybrid storage: a block lies half in each") {
  Two two(4);
  CHECK(two.both->block_bytes() == 2 * 64 * 8);
  CHECK(two.both->layout() == "3: digests + 5: digests");
  CHECK(two.both->part(0) == two.host);
  CHECK(two.both->part(1) == two.device);
  CHECK(two.both->part(kWholeStep) == two.both.get());
  CHECK(two.both->part(2) == nullptr);
  two.both->open(1, true);
  CHECK(two.host->opened == 1);
  CHECK(two.device->opened == 1);
}

TEST_CASE("hybrid storage: copies, reads and writes go to both") {
  Two two(4);
  for (int64_t row = 0; row < 64; ++row) {
    two.host->row(1, row) = static_cast<uint64_t>(row + 1);
    two.device->row(1, row) = static_cast<uint64_t>(row + 1000);
  }
  two.both->copy(1, 2);
  CHECK(two.host->row(2, 63) == 64);
  CHECK(two.device->row(2, 63) == 1063);
  std::vector<std::byte> bytes(static_cast<size_t>(two.both->block_bytes()));
  two.both->read(2, bytes);
  two.both->write(3, bytes);
  for (int64_t row = 0; row < 64; ++row) {
    CHECK(two.host->row(3, row) == static_cast<uint64_t>(row + 1));
    CHECK(two.device->row(3, row) == static_cast<uint64_t>(row + 1000));
  }
  CHECK(two.host->row(0, 0) == 0);
}
