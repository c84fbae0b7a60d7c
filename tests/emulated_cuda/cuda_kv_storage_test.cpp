// Blocks of keys and values in the emulated device's memory.
#include "cuda_kv_storage.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "backend/kv_cache.h"
#include "cuda_host/runtime.h"
#include "quant/float_bits.h"
#include "support/errors.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

constexpr KvShape kShape{2, 3, 24};

std::vector<std::byte> bytes_of(const CudaKvStorage& storage, int32_t block) {
  std::vector<std::byte> out(static_cast<size_t>(storage.block_bytes()));
  storage.read(block, out);
  return out;
}

/// Blocks of one token's worth of nothing but a number.
std::vector<std::byte> filled(const CudaKvStorage& storage, int value) {
  return std::vector<std::byte>(static_cast<size_t>(storage.block_bytes()),
                                static_cast<std::byte>(value));
}

}  // namespace

TEST_CASE("cuda kv storage: blocks begin as zeros, are copied, read and written") {
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8, KvFormat::f16}) {
    CudaKvStorage storage(kShape, format, 4, 0, nullptr);
    storage.open(2, true);
    storage.open(0, true);
    CHECK(bytes_of(storage, 2) == filled(storage, 0));
    const auto ones = filled(storage, 1);
    storage.write(2, ones);
    CHECK(bytes_of(storage, 2) == ones);
    CHECK(bytes_of(storage, 0) == filled(storage, 0));
    storage.copy(2, 0);
    CHECK(bytes_of(storage, 0) == ones);
    storage.open(2, false);
    CHECK(bytes_of(storage, 2) == filled(storage, 0));
    CHECK(bytes_of(storage, 0) == ones);
  }
  CHECK(cuda_host::allocated_bytes() == 0);
}

TEST_CASE("cuda kv storage: memory is taken as blocks are opened, and addresses stay") {
  // 4 layers x 8 heads x 128 in bf16: a block is 1 MiB, a slab 64 of them.
  CudaKvStorage storage({4, 8, 128}, KvFormat::bf16, 100, 0, nullptr);
  CHECK(storage.block_bytes() == 1 << 20);
  CHECK(storage.device_bytes() == 0);
  storage.open(99, true);
  CHECK(storage.device_bytes() == 64 << 20);
  std::byte* const first = storage.address(99);
  for (int32_t b = 0; b < 99; ++b) storage.open(b, true);
  CHECK(storage.device_bytes() == 100 << 20);
  CHECK(storage.address(99) == first);
}

TEST_CASE("cuda kv storage: a device without room says so, and the pool goes on") {
  const int64_t all = cuda_host::device().total_bytes;
  auto own = std::make_unique<CudaKvStorage>(KvShape{4, 8, 128}, KvFormat::bf16, 100, 0, nullptr);
  KvPool pool(std::move(own), {4, 8, 128}, {100, 0});
  cuda_host::device().total_bytes = cuda_host::allocated_bytes() + (3 << 20);
  std::vector<int32_t> blocks;
  pool.take(3, &blocks);  // no slab fits: block by block
  test::check_error(ErrorCode::out_of_memory, "no room for a block of 1048576 bytes",
                    [&] { pool.take(1, &blocks); });
  CHECK(blocks.size() == 3);
  cuda_host::device().total_bytes = all;
  pool.take(1, &blocks);  // the block whose opening failed
  CHECK(blocks.size() == 4);
  pool.storage().copy(blocks[0], blocks[3]);
}

TEST_CASE("cuda kv storage: what comes from outside is made finite") {
  for (const KvFormat format : {KvFormat::bf16, KvFormat::f16}) {
    CudaKvStorage storage(kShape, format, 1, 0, nullptr);
    storage.open(0, true);
    auto bytes = filled(storage, 0);
    const uint16_t infinity = format == KvFormat::f16 ? 0x7c00 : 0x7f80;
    const uint16_t bits[] = {infinity, static_cast<uint16_t>(infinity | 0x8000), 0xffff, 0x3c01};
    std::memcpy(bytes.data() + bytes.size() - sizeof bits, bits, sizeof bits);
    storage.write(0, bytes);
    bytes = bytes_of(storage, 0);
    uint16_t found[4];
    std::memcpy(found, bytes.data() + bytes.size() - sizeof found, sizeof found);
    CHECK(found[0] == infinity - 1);
    CHECK(found[1] == ((infinity - 1) | 0x8000));
    CHECK(found[2] == 0);
    CHECK(found[3] == 0x3c01);
  }
  CudaKvStorage storage(kShape, KvFormat::int8, 1, 0, nullptr);
  storage.open(0, true);
  auto bytes = filled(storage, 7);
  const KvGeometry& g = storage.geometry();
  const int64_t at = g.head_offset(1, 2) + g.scale_offset(5, true);
  const float nan = NAN;
  std::memcpy(bytes.data() + at, &nan, sizeof nan);
  storage.write(0, bytes);
  auto want = filled(storage, 7);
  std::memset(want.data() + at, 0, sizeof nan);
  CHECK(bytes_of(storage, 0) == want);
}

TEST_CASE("cuda kv storage: shapes that cannot be are refused") {
  const auto make = [](const KvShape& shape, int64_t blocks) {
    return [shape, blocks] { CudaKvStorage storage(shape, KvFormat::f16, blocks, 0, nullptr); };
  };
  using test::check_error;
  check_error(ErrorCode::invalid_argument, "is no size", make({0, 1, 16}, 1));
  check_error(ErrorCode::invalid_argument, "is no size", make({1, 1, 0}, 1));
  check_error(ErrorCode::invalid_argument, "is no size", make({1, 1, 16}, 0));
  check_error(ErrorCode::invalid_argument, "is no size", make({1, 1, 16}, int64_t{1} << 60));
  check_error(ErrorCode::invalid_argument, "is no size", make({int64_t{1} << 40, 1, 16}, 1));
  check_error(ErrorCode::unsupported, "head dimension 513", make({1, 1, 513}, 1));
}

TEST_CASE("cuda kv storage: layouts name the format") {
  CudaKvStorage a(kShape, KvFormat::f16, 1, 0, nullptr), b(kShape, KvFormat::bf16, 1, 0, nullptr);
  CHECK(a.layout() == "cuda 1 f16 blocks of 64");
  CHECK(a.layout() != b.layout());
}
