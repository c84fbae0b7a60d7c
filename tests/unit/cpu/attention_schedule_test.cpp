#include "ops/attention_schedule.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/attend.h"
#include "kv_layout.h"

using namespace qllm;       // NOLINT
using namespace qllm::cpu;  // NOLINT

namespace {

struct Case {
  std::vector<KvSlice> slices;
  std::vector<KvHeadGroup> teams;
  int64_t group = 1;
  int64_t window = 0;
  int workers = 1;
};

KvSlice slice_of(int64_t past, int64_t first, int64_t count) {
  KvSlice slice;
  slice.past = past;
  slice.first = first;
  slice.count = count;
  return slice;
}

/// Blocks that row i of a slice sees.
std::pair<int64_t, int64_t> seen(const Case& c, const KvSlice& slice, int64_t row) {
  const int64_t last = slice.past + row / c.group;
  const int64_t first = c.window > 0 ? std::max<int64_t>(0, last + 1 - c.window) : 0;
  return {first / kKvBlockTokens, last / kKvBlockTokens};
}

/// A piece that others share: how its tile was parted. Pieces of a tile, worker by worker.
void check_shared(const AttentionSchedule& schedule, const AttentionPiece& p, int worker) {
  if (p.whole() || p.first_worker != worker) return;
  int64_t next = 0;
  for (int w = p.first_worker; w <= p.last_worker; ++w) {
    int found = 0;
    for (const AttentionPiece& rest : schedule.pieces(w)) {
      if (rest.whole() || !rest.same_tile(p)) continue;
      ++found;
      REQUIRE(rest.begin == next);
      REQUIRE(rest.first_worker == p.first_worker);
      REQUIRE(rest.last_worker == p.last_worker);
      // One area for what others began, one for what others go on with.
      REQUIRE(&rest == (w == worker ? &schedule.pieces(w).back() : &schedule.pieces(w).front()));
      next = rest.end;
    }
    REQUIRE(found <= 1);
    if (w == p.first_worker || w == p.last_worker) REQUIRE(found == 1);
  }
}

/// How often each (slice, head, row, block) is computed, and that pieces of a tile fit together.
void check(const Case& c) {
  AttentionSchedule schedule({64, c.group, 1}, c.window);
  schedule.build(c.slices, c.teams, c.workers);
  std::map<std::tuple<int64_t, int64_t, int64_t, int64_t>, int> times;
  bool cuts = false;
  for (int w = 0; w < c.workers; ++w) {
    for (const AttentionPiece& p : schedule.pieces(w)) {
      REQUIRE(p.rows <= kAttendRows);
      REQUIRE(p.begin < p.end);
      for (int64_t r = p.row0; r < p.row0 + p.rows; ++r) {
        for (int64_t cell = p.begin; cell < p.end; ++cell) {
          ++times[{p.slice, p.kv_head + cell % p.heads, r, p.first_block + cell / p.heads}];
        }
      }
      cuts = cuts || !p.whole();
      check_shared(schedule, p, w);
    }
  }
  CHECK(cuts == schedule.has_cuts());
  int64_t heads = 0;
  for (const KvHeadGroup& team : c.teams) heads += team.n_heads;
  for (size_t s = 0; s < c.slices.size(); ++s) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t r = 0; r < c.slices[s].count * c.group; ++r) {
        const auto [from, to] = seen(c, c.slices[s], r);
        for (int64_t b = from; b <= to; ++b) {
          REQUIRE(times[{static_cast<int64_t>(s), h, r, b}] == 1);
        }
      }
    }
  }
  for (const auto& [key, n] : times) REQUIRE(n == 1);
}

}  // namespace

TEST_CASE("attention schedule: every row meets every block that it sees once") {
  std::mt19937 random(3);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint32_t>(n));
  };
  for (int i = 0; i < 60; ++i) {
    Case c;
    c.group = 1 + below(9);
    c.window = below(2) * below(300);
    c.workers = 1 + static_cast<int>(below(9));
    int64_t first = 0;
    for (int64_t s = below(4); s >= 0; --s) {
      const int64_t count = below(2) == 0 ? 1 : 1 + below(90);
      c.slices.push_back(slice_of(below(500), first, count));
      first += count;
    }
    const int split = static_cast<int>(below(c.workers + 1));
    const int64_t heads = 1 + below(5);
    if (split == 0 || split == c.workers) {
      c.teams = {{0, heads, 0, c.workers}};
    } else {  // two nodes
      c.teams = {{0, heads, 0, split}, {heads, heads, split, c.workers - split}};
    }
    check(c);
  }
}

TEST_CASE("attention schedule: shares are even to half a head of a block") {
  const auto cells = [](const AttentionSchedule& schedule, int worker) {
    int64_t n = 0;
    for (const AttentionPiece& p : schedule.pieces(worker)) n += p.end - p.begin;
    return n;
  };
  // One sequence, three KV heads, two workers: each takes half of the blocks, all heads.
  AttentionSchedule schedule({64, 3, 3}, 0);
  const std::vector<KvSlice> slices = {slice_of(64 * 31, 0, 1)};
  const std::vector<KvHeadGroup> team = {{0, 3, 0, 2}};
  schedule.build(slices, team, 2);
  CHECK(schedule.has_cuts());
  for (int w = 0; w < 2; ++w) {
    CHECK(cells(schedule, w) == 48);
    REQUIRE(schedule.pieces(w).size() == 1);
    CHECK(schedule.pieces(w)[0].heads == 3);
  }
  // Heads that divide are not parted: nothing to merge, and each worker's lie side by side.
  const std::vector<KvHeadGroup> even = {{0, 4, 0, 2}};
  schedule.build(slices, even, 2);
  CHECK_FALSE(schedule.has_cuts());
  REQUIRE(schedule.pieces(1).size() == 1);
  CHECK(schedule.pieces(1)[0].kv_head == 2);
  CHECK(schedule.pieces(1)[0].heads == 2);
  // Six workers, four heads: two teams of three.
  const std::vector<KvHeadGroup> mixed = {{0, 4, 0, 6}};
  schedule.build(slices, mixed, 6);
  for (int w = 0; w < 6; ++w) CHECK(std::abs(cells(schedule, w) * 3 - 64) <= 2);
}

TEST_CASE("attention schedule: tiles of many tokens are not cut") {
  // Three KV heads for two workers: an even cut would lie within one. A token's sums must not
  // depend on where it lies among the tokens of the step.
  AttentionSchedule schedule({64, 3, 3}, 0);
  const std::vector<KvHeadGroup> team = {{0, 3, 0, 2}};
  for (const int64_t count : {4, 33, 100, 512}) {
    CAPTURE(count);
    const std::vector<KvSlice> slices = {slice_of(64 * 31, 0, count)};
    schedule.build(slices, team, 2);
    CHECK_FALSE(schedule.has_cuts());
    CHECK_FALSE(schedule.pieces(0).empty());
    CHECK_FALSE(schedule.pieces(1).empty());
  }
}
