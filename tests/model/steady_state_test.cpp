// What a long-running program relies on: a warm step asks for no memory, and memory does not grow.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <numeric>
#include <vector>

#include "qllm/qllm.hpp"
#include "qllm/trace.hpp"
#include "support/allocations.h"
#include "support/sanitized.h"

namespace {

/// `kv_memory_bytes` as in OpenOptions.
qllm::Model small_model(int64_t kv_memory_bytes = 0) {
  qllm::SyntheticShape shape;
  shape.d_model = 128;
  shape.d_ff = 192;
  shape.n_layers = 2;
  shape.n_heads = 4;
  shape.n_kv_heads = 2;
  shape.head_dim = 32;
  shape.vocab = 500;
  qllm::OpenOptions options;
  options.device = "cpu";
  options.threads = 2;
  options.max_batch_tokens = 32;
  options.kv_memory_bytes = kv_memory_bytes;
  return qllm::Model::synthetic(shape, options);
}

int64_t rss_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

/// Decodes `count` tokens, starting over wherever the context is full.
void decode(qllm::Session& session, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (session.position() == session.max_context()) session.reset();
    session.decode(static_cast<int32_t>(i % 500));
  }
}

}  // namespace

TEST_CASE("steady state: allocations are counted at all") {
  if (qllm::test::kSanitized) {
    MESSAGE("[skipped] allocations: not counted under a sanitizer");
    return;
  }
  const int64_t before = qllm::test::allocations();
  const std::vector<int> some(100);
  CHECK(qllm::test::allocations() > before);
  CHECK(some.size() == 100);
  const int64_t before_c = qllm::test::allocations();
  FILE* file = std::fopen("/proc/self/statm", "r");  // the C library's own malloc
  REQUIRE(file != nullptr);
  std::fclose(file);
  CHECK(qllm::test::allocations() > before_c);
}

TEST_CASE("steady state: a warm decode step asks for no memory") {
  const auto model = small_model();
  qllm::Session session(model, 256);
  decode(session, 300);  // through a full context, and into the next
  const int64_t before = qllm::test::allocations();
  decode(session, 300);
  CHECK(qllm::test::allocations() - before == 0);
}

TEST_CASE("steady state: a step that is recorded asks for no memory either") {
  const auto model = small_model();
  qllm::Session session(model, 256);
  decode(session, 300);
  const qllm::Trace trace(model);
  decode(session, 3);
  const int64_t before = qllm::test::allocations();
  decode(session, 300);
  CHECK(qllm::test::allocations() - before == 0);
  CHECK(trace.info().steps == 303);
  CHECK(trace.info().dropped_spans == 0);
}

TEST_CASE("steady state: a warm prefill step asks for no memory") {
  const auto model = small_model();
  qllm::Session session(model, 256);
  std::vector<int32_t> ids(200);  // six full steps and a ragged one
  std::iota(ids.begin(), ids.end(), 0);
  for (int i = 0; i < 3; ++i) {
    session.reset();
    session.prefill(ids);
  }
  const int64_t before = qllm::test::allocations();
  session.reset();
  session.prefill(ids);
  CHECK(qllm::test::allocations() - before == 0);
}

TEST_CASE("steady state: 10,000 tokens leave RSS where it was") {
  if (qllm::test::kSanitized) {
    MESSAGE("[skipped] RSS: a sanitizer's own memory grows");
    return;
  }
  // What was computed stays known until its memory is wanted: two contexts of 512 tokens.
  const auto model = small_model(2 * 512 * 512);
  qllm::Session session(model, 512);
  decode(session, 1024);
  // A leak grows each time; pages that the kernel puts together to large ones grow once.
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int i = 0; i < 3 && least >= (int64_t{1} << 20); ++i) {
    const int64_t before = rss_bytes();
    decode(session, 10000);
    least = std::min(least, rss_bytes() - before);
    MESSAGE("RSS grew by ", rss_bytes() - before, " bytes");
  }
  CHECK(least < (int64_t{1} << 20));
}
