#include "backend/kv_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "backend/kv_cache.h"
#include "support/errors.h"
#include "support/kv_model.h"
#include "support/sanitized.h"

namespace {

using namespace qllm;
using namespace qllm::test;

std::vector<int32_t> text(int64_t count, int32_t first = 0) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

/// xorshift64*
struct Random {
  uint64_t state = 88172645463325252U;
  int64_t below(int64_t n) {
    state ^= state >> 12U;
    state ^= state << 25U;
    state ^= state >> 27U;
    return static_cast<int64_t>((state * 2685821657736338717U) >> 33U) % n;
  }
};

}  // namespace

TEST_CASE("kv pool: a sequence takes blocks as it grows and gives them back") {
  const auto pool = make_digest_pool({8, 0});
  {
    KvCache kv(pool, 200);
    CHECK(pool->stats().held == 0);
    append(kv, text(64));
    CHECK(pool->stats().held == 1);
    append(kv, text(1));
    CHECK(pool->stats().held == 2);
    CHECK(kv.bytes() == 2 * 64 * 8);
    append(kv, text(135));
    CHECK(pool->stats().held == 4);
    kv.truncate(64);
    CHECK(pool->stats().held == 1);
    CHECK(is_intact(kv));
  }
  CHECK(pool->stats().held == 0);
  CHECK(pool->stats().freed == 4);
  CHECK(pool->stats().fresh == 4);  // the four that were freed served again
}

TEST_CASE("kv pool: no room is said before anything is changed") {
  const auto pool = make_digest_pool({2, 2});
  KvCache a(pool, 256);
  KvCache b(pool, 256);
  append(a, text(100));
  check_error(ErrorCode::out_of_memory, "0 of 2 are free", [&] { append(b, text(1, 7)); });
  check_error(ErrorCode::out_of_memory, "KV memory", [&] { append(a, text(29)); });
  check_error(ErrorCode::context_full, "100 tokens held and 157 more do not fit into 256",
              [&] { append(a, text(157)); });
  CHECK(a.length() == 100);
  CHECK(b.length() == 0);
  CHECK(b.blocks().empty());
  CHECK(is_intact(a));
  append(a, text(28));
  CHECK(is_intact(a));
}

TEST_CASE("kv pool: full blocks of equal text are shared, held or not") {
  const auto pool = make_digest_pool({8, 8});
  const auto prompt = text(200);
  auto a = std::make_unique<KvCache>(pool, 256);
  append(*a, prompt);
  KvCache b(pool, 256);
  CHECK(b.reuse_prefix(prompt) == 192);
  CHECK(std::equal(b.blocks().begin(), b.blocks().end(), a->blocks().begin()));
  CHECK(pool->stats().held == 4);
  append(b, text(8, 192));
  CHECK(is_intact(b));
  a.reset();
  CHECK(is_intact(b));
  b.truncate(0);
  CHECK(pool->stats().held == 0);
  CHECK(pool->stats().kept == 3);
  auto other = prompt;
  other[64] = 1000;
  CHECK(b.reuse_prefix(other) == 64);
  CHECK(b.reuse_prefix(prompt) == 192);  // what it holds, and more
  CHECK(is_intact(b));
  CHECK(b.reuse_prefix(text(63)) == 63);
  CHECK(b.reuse_prefix(text(10, 5)) == 0);
}

TEST_CASE("kv pool: who holds the same text behind another beginning does not share it") {
  const auto pool = make_digest_pool({8, 8});
  KvCache a(pool, 256);
  append(a, text(64, 1));
  append(a, text(64, 500));
  KvCache b(pool, 256);
  append(b, text(64, 2));
  auto wanted = text(64, 2);
  const auto more = text(64, 500);
  wanted.insert(wanted.end(), more.begin(), more.end());
  CHECK(b.reuse_prefix(wanted) == 64);
}

TEST_CASE("kv pool: blocks that nobody holds go out least recently used, ends first") {
  const auto pool = make_digest_pool({4, 4});
  KvCache kv(pool, 256);
  append(kv, text(128));
  kv.truncate(0);
  append(kv, text(64, 900));
  kv.truncate(0);
  CHECK(pool->stats().kept == 3);
  append(kv, text(128, 5000));  // one fresh block, then the end of the first text
  CHECK(is_intact(kv));
  KvCache other(pool, 256);
  CHECK(other.reuse_prefix(text(128)) == 64);
  CHECK(other.reuse_prefix(text(64, 900)) == 64);
  CHECK(is_intact(other));
}

TEST_CASE("kv pool: no more than kept_blocks are remembered, and memory is used again first") {
  const auto pool = make_digest_pool({100, 3});
  KvCache kv(pool, 1000);
  for (int i = 0; i < 20; ++i) {
    append(kv, text(640, 1000 * i));
    kv.truncate(0);
  }
  CHECK(pool->stats().kept == 3);
  CHECK(pool->stats().fresh == 87);  // 10 at a time beside 3 remembered
}

TEST_CASE("kv pool: a fork shares all and parts where either goes on") {
  const auto pool = make_digest_pool({8, 8});
  KvCache a(pool, 256);
  append(a, text(100));
  const auto b = a.fork();
  CHECK(pool->stats().held == 2);
  append(*b, text(5, 700));
  CHECK(pool->stats().held == 3);
  append(a, text(5, 800));
  CHECK(pool->stats().held == 3);
  CHECK(is_intact(a));
  CHECK(is_intact(*b));
  CHECK(a.blocks()[0] == b->blocks()[0]);
  b->truncate(30);
  append(*b, text(50, 900));  // into a block that the other holds
  CHECK(is_intact(a));
  CHECK(is_intact(*b));
}

TEST_CASE("kv pool: writing again into a known block makes it unknown") {
  const auto pool = make_digest_pool({8, 8});
  KvCache a(pool, 256);
  append(a, text(64));
  a.truncate(63);
  append(a, text(1, 999));
  KvCache b(pool, 256);
  CHECK(b.reuse_prefix(text(64)) == 0);
  auto now = text(64);
  now[63] = 999;
  CHECK(b.reuse_prefix(now) == 64);
  CHECK(is_intact(b));
}

TEST_CASE("kv pool: what was restored is neither shared nor the ground of what is") {
  const auto pool = make_digest_pool({16, 16});
  KvCache a(pool, 512);
  a.restore(text(100));
  append(a, text(100, 100));
  KvCache b(pool, 512);
  CHECK(b.reuse_prefix(text(200)) == 0);
  const auto c = a.fork();
  append(*c, text(64, 200));
  CHECK(b.reuse_prefix(text(264)) == 0);
  a.truncate(10);
  append(a, text(118, 10));
  CHECK(b.reuse_prefix(text(128)) == 0);
  append(b, text(128));
  CHECK(a.reuse_prefix(text(200)) == 128);
  CHECK(a.blocks()[0] == a.blocks()[0]);
  a.truncate(0);
  CHECK(a.reuse_prefix(text(200)) == 128);
  CHECK(a.blocks()[0] == b.blocks()[0]);
  CHECK(is_intact(a));
}

TEST_CASE("kv pool: hashes that collide do not mix texts") {
  KvPoolOptions options{64, 64};
  options.hash = [](KvTextId, std::span<const int32_t>) -> uint64_t { return 7; };
  const auto pool = make_digest_pool(options);
  KvCache kv(pool, 256);
  for (int32_t i = 0; i < 20; ++i) {
    append(kv, text(128, 1000 * i));
    kv.truncate(0);
  }
  for (int32_t i = 19; i >= 0; --i) {
    CHECK(kv.reuse_prefix(text(128, 1000 * i)) == 128);
    CHECK(is_intact(kv));
  }
  CHECK(kv.reuse_prefix(text(128, 77)) == 0);
}

namespace {

/// Random calls on sequences beside the simplest model of them: a list of tokens each.
class Chaos {
 public:
  explicit Chaos(const KvPoolOptions& options) : pool_(make_digest_pool(options)) {}

  void step() {
    const int64_t what = random_.below(10);
    if (sequences_.empty() || (what == 0 && sequences_.size() < 12)) return open();
    const auto at = static_cast<size_t>(random_.below(static_cast<int64_t>(sequences_.size())));
    if (what == 1 && sequences_.size() < 12) return fork(at);
    if (what == 2) return close(at);
    if (what == 3) return truncate(at);
    if (what == 4) return reuse(at);
    append_to(at);
  }

  void check() {
    std::set<int32_t> held;
    for (const Sequence& s : sequences_) {
      REQUIRE(std::equal(s.tokens.begin(), s.tokens.end(), s.kv->tokens().begin(),
                         s.kv->tokens().end()));
      REQUIRE(is_intact(*s.kv));
      held.insert(s.kv->blocks().begin(), s.kv->blocks().end());
    }
    const KvPoolStats stats = pool_->stats();
    REQUIRE(stats.held == static_cast<int64_t>(held.size()));
    REQUIRE(stats.held + stats.kept + stats.freed + stats.fresh == stats.blocks);
  }

  void close_all() {
    while (!sequences_.empty()) close(0);
    REQUIRE(pool_->stats().held == 0);
  }

  int64_t appends = 0, refused = 0, reused = 0, reopened = 0;

 private:
  struct Sequence {
    std::unique_ptr<KvCache> kv;
    std::vector<int32_t> tokens;
  };

  /// Of three texts that part from each other here and there, so that prefixes are often equal.
  int32_t next_token(size_t position) {
    return random_.below(40) == 0 ? static_cast<int32_t>(random_.below(3))
                                  : static_cast<int32_t>(position % 5);
  }
  std::vector<int32_t> continued(std::vector<int32_t> tokens, int64_t count) {
    for (int64_t i = 0; i < count; ++i) tokens.push_back(next_token(tokens.size()));
    return tokens;
  }
  void open() { sequences_.push_back({std::make_unique<KvCache>(pool_, 400), {}}); }
  void fork(size_t at) {
    auto copy = sequences_[at].kv->fork();
    sequences_.push_back({std::move(copy), sequences_[at].tokens});
  }
  void close(size_t at) { sequences_.erase(sequences_.begin() + static_cast<std::ptrdiff_t>(at)); }
  void truncate(size_t at) {
    Sequence& s = sequences_[at];
    const int64_t length = random_.below(static_cast<int64_t>(s.tokens.size()) + 1);
    s.kv->truncate(length);
    s.tokens.resize(static_cast<size_t>(length));
  }
  void reuse(size_t at) {
    Sequence& s = sequences_[at];
    const auto wanted = continued({}, random_.below(400));
    const int64_t length = s.kv->reuse_prefix(wanted);
    const auto same = std::mismatch(s.tokens.begin(), s.tokens.end(), wanted.begin(), wanted.end());
    REQUIRE(length >= same.first - s.tokens.begin());
    if (length > same.first - s.tokens.begin()) ++reused;
    s.tokens.assign(wanted.begin(), wanted.begin() + length);
  }
  void append_to(size_t at) {
    Sequence& s = sequences_[at];
    const int64_t count = 1 + random_.below(random_.below(3) == 0 ? 150 : 10);
    const auto longer = continued(s.tokens, count);
    ++appends;
    try {
      append(*s.kv, std::span(longer).subspan(s.tokens.size()));
      s.tokens = longer;
    } catch (const Error& e) {
      ++refused;
      const bool full = static_cast<int64_t>(longer.size()) > 400;
      REQUIRE(e.code() == (full ? ErrorCode::context_full : ErrorCode::out_of_memory));
    }
  }

  std::shared_ptr<KvPool> pool_;
  std::vector<Sequence> sequences_;
  Random random_;
};

}  // namespace

TEST_CASE("kv pool: 10,000 random opens, forks, appends, truncations and closes") {
  for (const KvPoolOptions& options :
       {KvPoolOptions{24, 24}, KvPoolOptions{24, 2}, KvPoolOptions{200, 0},
        KvPoolOptions{30, 30, [](KvTextId p, std::span<const int32_t>) { return p % 3; }}}) {
    Chaos chaos(options);
    for (int i = 0; i < 10000; ++i) {
      chaos.step();
      chaos.check();
    }
    // Each of them happened, or nothing was tested.
    CHECK(chaos.appends > 3000);
    CHECK(chaos.refused > 20);
    if (options.blocks < 100) CHECK(chaos.reused > 20);
    chaos.close_all();
  }
}

TEST_CASE("kv pool: sequences of several threads share it") {
  const auto pool = make_digest_pool({64, 64});
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        KvCache kv(pool, 512);
        const auto prompt = text(300, i % 3);
        const int64_t reused = kv.reuse_prefix(prompt);
        append(kv, std::span(prompt).subspan(static_cast<size_t>(reused)));
        const auto other = kv.fork();
        append(*other, text(1 + t, 7000 + t));
        append(kv, text(70, 8000));
        if (!is_intact(kv) || !is_intact(*other)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(pool->stats().held == 0);
}

TEST_CASE("kv pool: sizes that are none are refused") {
  check_error(ErrorCode::invalid_argument, "0 blocks", [] { make_digest_pool({0, 0}); });
  check_error(ErrorCode::invalid_argument, "capacity of 0", [] {
    KvCache(make_digest_pool({1, 1}), 0);
  });
  check_error(ErrorCode::invalid_argument, "expected bf16, int8 or f16, found fp8",
              [] { parse_kv_format("fp8"); });
}
