#include "page_nodes.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "placed_memory.h"

namespace {

using namespace qllm::cpu;

TEST_CASE("page nodes: touched pages are on a node, others nowhere, all are counted") {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = 3000 * page;  // several questions
  const PlacedBuffer buffer(bytes, {false, nullptr, {}});
  std::memset(buffer.data(), 1, 1500 * page);
  NodeBytes nodes;
  add_pages(buffer.data(), bytes, &nodes);
  if (!nodes.known) {
    MESSAGE("[skipped] page nodes: this kernel does not tell (no NUMA, or refused)");
    return;
  }
  CHECK(nodes.total() == static_cast<int64_t>(bytes));
  CHECK(nodes.nowhere == static_cast<int64_t>(1500 * page));
  REQUIRE_FALSE(nodes.on.empty());
  CHECK(nodes.beside(-1) == static_cast<int64_t>(1500 * page));
  if (nodes.on.size() == 1) CHECK(nodes.beside(nodes.on.begin()->first) == 0);
}

TEST_CASE("page nodes: pages at the ends count as far as they are inside") {
  const PlacedBuffer buffer(size_t{1} << 20, {false, nullptr, {}});
  std::memset(buffer.data(), 1, buffer.bytes());
  NodeBytes nodes;
  add_pages(buffer.as<char>() + 100, 50, &nodes);
  add_pages(buffer.as<char>() + 4000, 9000, &nodes);
  add_pages(buffer.as<char>() + 4096, 0, &nodes);
  if (nodes.known) CHECK(nodes.total() == 9050);
}

TEST_CASE("page nodes: counts by node") {
  NodeBytes nodes;
  nodes.on = {{0, 100}, {3, 50}};
  nodes.nowhere = 7;
  CHECK(nodes.total() == 157);
  CHECK(nodes.beside(0) == 50);
  CHECK(nodes.beside(3) == 100);
  CHECK(nodes.beside(1) == 150);
}

}  // namespace
