#include "cpu_kv_storage.h"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <set>
#include <vector>

#include "kv_layout.h"
#include "support/errors.h"
#include "support/sanitized.h"

namespace {

using namespace qllm;
using namespace qllm::cpu;

std::vector<WorkerSlot> slots(const std::vector<int>& nodes) {
  std::vector<WorkerSlot> out;
  for (const int node : nodes) out.push_back({static_cast<int>(out.size()), node});
  return out;
}

int64_t resident_bytes() {
  int64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * 4096;
}

}  // namespace

TEST_CASE("cpu kv storage: bytes per token are those of the formula") {
  for (const KvShape& shape : {KvShape{30, 3, 64}, KvShape{16, 8, 64}, KvShape{32, 8, 128}}) {
    const auto values = static_cast<double>(2 * shape.n_layers * shape.n_kv_heads * shape.head_dim);
    const auto heads = static_cast<double>(2 * shape.n_layers * shape.n_kv_heads);
    const auto per_token = [&](KvFormat format) {
      return static_cast<double>(kv_block_bytes(shape, format)) / kKvBlockTokens;
    };
    CHECK(per_token(KvFormat::bf16) == doctest::Approx(2 * values).epsilon(0.02));
    CHECK(per_token(KvFormat::int8) == doctest::Approx(values + 4 * heads).epsilon(0.02));
  }
}

TEST_CASE("cpu kv storage: the system gives what the formula says, and nothing for unused blocks") {
  if (test::kSanitized) {
    MESSAGE("[skipped] resident memory: a sanitizer's own grows");
    return;
  }
  const auto topology = Topology::detect({});
  const KvShape shape{16, 8, 64};
  constexpr int32_t kBlocks = 48;  // 96 MiB in bf16, so that one large page more is 2 %
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
    for (const bool large_pages : {false, true}) {
      CAPTURE(large_pages);
      const int64_t before = resident_bytes();
      CpuKvStorage storage(shape, format, 100 * kBlocks, *topology, large_pages);
      std::vector<std::byte> content(static_cast<size_t>(storage.block_bytes()), std::byte{1});
      const int64_t empty = resident_bytes();
      CHECK(empty - before < 4 * storage.block_bytes());
      for (int32_t block = 0; block < kBlocks; ++block) {
        storage.open(block, true);
        storage.write(block, content);
      }
      const int64_t scale = format == KvFormat::int8 ? 4 : 0;
      const int64_t element = format == KvFormat::int8 ? 1 : 2;
      const int64_t per_token = 2 * 16 * 8 * (64 * element + scale);
      const auto grown = static_cast<double>(resident_bytes() - empty);
      CHECK(grown / (kBlocks * kKvBlockTokens) ==
            doctest::Approx(static_cast<double>(per_token)).epsilon(0.02));
    }
  }
}

TEST_CASE("cpu kv storage: blocks lie on large pages where the system gives them") {
  constexpr int64_t kBytes = 32 << 20;
  const PlacedBuffer other(kBytes, {});
  std::memset(other.data(), 1, kBytes);
  const auto topology = Topology::detect({});
  CpuKvStorage storage({16, 8, 64}, KvFormat::bf16, 200, *topology, true);
  const std::vector<std::byte> content(static_cast<size_t>(storage.block_bytes()), std::byte{1});
  for (int32_t block = 0; block < kBytes / storage.block_bytes(); ++block) {
    storage.open(block, true);
    storage.write(block, content);
  }
  if (large_page_bytes(other.data(), kBytes) < kBytes) {
    MESSAGE("[skipped] large pages: the system gives other memory too few");
    return;
  }
  CHECK(storage.large_page_bytes() >= kBytes / 2);  // it may run out of them meanwhile
}

TEST_CASE("cpu kv storage: no two heads overlap, and all fill the block") {
  const auto topology = Topology::detect({});
  const KvShape shape{3, 5, 24};
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
    CpuKvStorage storage(shape, format, 4, *topology, true);
    const int64_t bytes = kv_head_bytes(format, shape.head_dim);
    CHECK(storage.block_bytes() == bytes * 15);
    std::set<std::byte*> begins;
    for (int32_t block = 0; block < 4; ++block) {
      for (int64_t layer = 0; layer < 3; ++layer) {
        for (int64_t h = 0; h < 5; ++h) begins.insert(storage.head(block, layer, h));
      }
    }
    CHECK(begins.size() == 60);
    std::byte* last = nullptr;
    for (std::byte* begin : begins) {
      CHECK(reinterpret_cast<uintptr_t>(begin) % 64 == 0);
      if (last != nullptr) CHECK(begin - last >= bytes);
      last = begin;
    }
  }
}

TEST_CASE("cpu kv storage: blocks are opened, copied, read and written whole") {
  const auto topology = Topology::detect({});
  CpuKvStorage storage({2, 3, 16}, KvFormat::bf16, 3, *topology, false);
  const auto size = static_cast<size_t>(storage.block_bytes());
  std::vector<std::byte> in(size), out(size);
  for (size_t i = 0; i < size; ++i) in[i] = static_cast<std::byte>((i * 31 + i / 256) % 64);
  storage.open(1, true);
  storage.read(1, out);
  CHECK(out == std::vector<std::byte>(size));
  storage.write(1, in);
  storage.read(1, out);
  CHECK(out == in);
  storage.open(2, true);
  storage.copy(1, 2);
  storage.open(1, false);
  storage.read(2, out);
  CHECK(out == in);
  storage.read(1, out);
  CHECK(out == std::vector<std::byte>(size));
}

TEST_CASE("cpu kv storage: what is written from outside holds no values that are no numbers") {
  const auto topology = Topology::detect({});
  const KvShape shape{2, 3, 16};
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
    CpuKvStorage storage(shape, format, 1, *topology, false);
    storage.open(0, true);
    const auto size = static_cast<size_t>(storage.block_bytes());
    storage.write(0, std::vector<std::byte>(size, std::byte{0xff}));
    const auto bytes = static_cast<size_t>(kv_head_bytes(format, shape.head_dim));
    std::vector<std::byte> expected(bytes, std::byte{0xff});
    make_kv_values_finite(format, shape.head_dim, expected.data());
    for (int64_t layer = 0; layer < shape.n_layers; ++layer) {
      for (int64_t h = 0; h < shape.n_kv_heads; ++h) {
        CHECK(std::memcmp(storage.head(0, layer, h), expected.data(), bytes) == 0);
      }
    }
  }
}

TEST_CASE("cpu kv storage: heads lie on the nodes of the workers that read them") {
  const auto one = group_kv_heads(slots({0, 0, 0}), 8);
  REQUIRE(one.size() == 1);
  CHECK(one[0].n_heads == 8);
  CHECK(one[0].n_workers == 3);
  const auto two = group_kv_heads(slots({0, 0, 0, 1}), 8);
  REQUIRE(two.size() == 2);
  CHECK(two[0].n_heads == 6);
  CHECK(two[1].first_head == 6);
  CHECK(two[1].n_heads == 2);
  CHECK(two[1].first_worker == 3);
  const auto few = group_kv_heads(slots({0, 1, 2, 3}), 2);
  int64_t heads = 0;
  for (const KvHeadGroup& group : few) {
    CHECK(group.first_head == heads);
    heads += group.n_heads;
  }
  CHECK(heads == 2);
  // Each node's share on a machine of two, which hwloc makes up.
  TopologyOptions options;
  options.synthetic = "numa:2 core:2 pu:1";
  const auto topology = Topology::detect(options);
  CpuKvStorage storage({2, 4, 16}, KvFormat::bf16, 2, *topology, false);
  CHECK(storage.groups().size() == 2);
  CHECK(storage.head(0, 0, 1) - storage.head(0, 0, 0) == kv_head_bytes(KvFormat::bf16, 16));
  CHECK(storage.head(0, 0, 3) - storage.head(0, 0, 2) == kv_head_bytes(KvFormat::bf16, 16));
}

TEST_CASE("cpu kv storage: shapes that cannot be are refused") {
  const auto topology = Topology::detect({});
  const auto make = [&](const KvShape& shape, int64_t blocks) {
    return [&topology, shape, blocks] {
      CpuKvStorage storage(shape, KvFormat::bf16, blocks, *topology, false);
    };
  };
  using test::check_error;
  check_error(ErrorCode::invalid_argument, "is no size", make({0, 1, 16}, 1));
  check_error(ErrorCode::invalid_argument, "is no size", make({1, 1, 16}, int64_t{1} << 60));
  check_error(ErrorCode::invalid_argument, "is no size",
              make({int64_t{1} << 40, int64_t{1} << 40, 16}, 1));
  check_error(ErrorCode::unsupported, "head dimension 513", make({1, 1, 513}, 1));
  check_error(ErrorCode::unsupported, "format f16: the cpu has bf16 and int8", [&] {
    CpuKvStorage storage({1, 1, 16}, KvFormat::f16, 1, *topology, false);
  });
  check_error(ErrorCode::out_of_memory, "cannot map", make({1, 1, 16}, int64_t{1} << 45));
}
