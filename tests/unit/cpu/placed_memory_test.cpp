#include "placed_memory.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "core/error.h"

namespace {

using namespace qllm::cpu;

bool aligned(const PlacedBuffer& buffer, uintptr_t to) {
  return reinterpret_cast<uintptr_t>(buffer.data()) % to == 0;
}

TEST_CASE("placed memory: zeroed, aligned, writable to the last byte") {
  const auto topology = Topology::detect({});
  for (const bool large : {true, false}) {
    for (const size_t bytes : {size_t{1}, size_t{4095}, size_t{4097}, (size_t{2} << 20) - 1,
                               size_t{2} << 20, (size_t{5} << 20) + 3}) {
      CAPTURE(bytes);
      const PlacedBuffer buffer(bytes, {large, topology.get(), topology->workers().front()});
      CHECK(buffer.bytes() == bytes);
      CHECK(aligned(buffer, bytes >= size_t{2} << 20 ? size_t{2} << 20 : 4096));
      const auto* p = buffer.as<unsigned char>();
      CHECK(std::all_of(p, p + bytes, [](unsigned char c) { return c == 0; }));
      std::memset(buffer.data(), 0xA5, bytes);
    }
  }
}

TEST_CASE("placed memory: moves, and nothing is a buffer too") {
  PlacedBuffer a(10000, {});
  a.as<char>()[9999] = 'x';
  void* const p = a.data();
  PlacedBuffer b(std::move(a));
  CHECK(a.data() == nullptr);
  CHECK(a.bytes() == 0);
  CHECK(b.data() == p);
  PlacedBuffer c(5, {});
  c = std::move(b);
  CHECK(c.as<char>()[9999] == 'x');
  CHECK(c.bytes() == 10000);
  CHECK(b.data() == nullptr);
  c = PlacedBuffer();
  CHECK(c.data() == nullptr);
  CHECK(PlacedBuffer(0, {}).data() == nullptr);
}

TEST_CASE("placed memory: absurd sizes are out of memory, with the size") {
  for (const size_t bytes : {size_t{1} << 60, std::numeric_limits<size_t>::max(),
                             std::numeric_limits<size_t>::max() - 4096,
                             static_cast<size_t>(std::numeric_limits<ptrdiff_t>::max())}) {
    CAPTURE(bytes);
    try {
      const PlacedBuffer buffer(bytes, {});
      FAIL("accepted");
    } catch (const qllm::Error& e) {
      CHECK(e.code() == qllm::ErrorCode::out_of_memory);
      CHECK(std::string(e.what()).find(std::to_string(bytes)) != std::string::npos);
    }
  }
}

TEST_CASE("placed memory: a synthetic machine binds nothing and gives memory all the same") {
  const auto topology = Topology::detect({0, "", "package:2 [numa] core:2 pu:1"});
  const PlacedBuffer buffer(1 << 20, {true, topology.get(), topology->workers().back()});
  std::memset(buffer.data(), 1, buffer.bytes());
}

TEST_CASE("placed memory: large pages are counted within the buffer") {
  const PlacedBuffer buffer(size_t{16} << 20, {});
  CHECK(large_page_bytes(buffer.data(), buffer.bytes()) == 0);
  std::memset(buffer.data(), 1, buffer.bytes());
  const int64_t large = large_page_bytes(buffer.data(), buffer.bytes());
  CHECK(large >= 0);  // how many the system gives is its business
  CHECK(large <= static_cast<int64_t>(buffer.bytes()));
  CHECK(large_page_bytes(buffer.data(), 4096) <= 4096);
  // Those of other mappings, wherever they lie, are not counted.
  const PlacedBuffer small[2] = {{size_t{16} << 20, {false, nullptr, {}}},
                                 {size_t{16} << 20, {false, nullptr, {}}}};
  for (const PlacedBuffer& b : small) CHECK(large_page_bytes(b.data(), b.bytes()) == 0);
  MESSAGE("on large pages: ", large, " of ", buffer.bytes());
}

}  // namespace
