#include "backend/batch.h"

#include <doctest/doctest.h>

#include <vector>

#include "graph/cut.h"
#include "model/llama.h"
#include "support/errors.h"
#include "support/kv_model.h"

namespace {

using namespace qllm;
using namespace qllm::test;

Graph graph() {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 300;
  c.d_model = 64;
  c.d_ff = 128;
  c.n_layers = 2;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 16;
  c.rotary_dim = 16;
  c.context_length = 128;
  return build_llama(c);
}

constexpr PlanLimits kLimits{8, 2};

}  // namespace

TEST_CASE("batch: what a whole graph and each part of it take and give") {
  const Graph whole = graph();
  const CutGraph parts = cut(whole, 1);
  const StepShape w = step_shape(whole);
  const StepShape first = step_shape(parts.first);
  const StepShape second = step_shape(parts.second);
  const std::vector<int32_t> tokens = {1, 2, 3};
  const std::vector<int32_t> outputs = {2};
  const Batch batch{tokens, {}, outputs};
  CHECK((w.vocab == 300 && w.input_width == 0 && result_size(batch, w) == 300));
  CHECK((first.vocab == 300 && first.input_width == 0 && result_size(batch, first) == 3 * 64));
  CHECK((second.vocab == 0 && second.input_width == 64 && result_size(batch, second) == 300));
}

TEST_CASE("batch: inputs and the room for the result are those of the graph") {
  const Graph whole = graph();
  const CutGraph parts = cut(whole, 1);
  const auto pool = make_digest_pool({4, 0});
  KvCache kv(pool, 128);
  const std::vector<int32_t> tokens = {1, 2, 299};
  const std::vector<int32_t> outputs = {2};
  const std::vector<float> values(3 * 64);
  const BatchSlice slice{&kv, 0, 3};
  const Batch batch{tokens, {&slice, 1}, outputs};
  const auto refused = [&](const Batch& b, const Graph& g, int64_t room, const char* why) {
    check_error(ErrorCode::invalid_argument, why,
                [&] { check_batch(b, kLimits, step_shape(g), room); });
  };
  check_batch(batch, kLimits, step_shape(whole), 300);
  refused(batch, whole, 299, "a result of 300 values, room for 299");
  check_batch(batch, kLimits, step_shape(parts.first), 192);
  refused(batch, parts.first, 191, "a result of 192 values, room for 191");
  refused(batch, parts.second, 300, "0 values of input, expected 3 x 64");
  Batch with_input = batch;
  with_input.inputs = values;
  check_batch(with_input, kLimits, step_shape(parts.second), 300);
  refused(with_input, whole, 300, "192 values of input, expected 3 x 0");
  with_input.inputs = std::span(values).first(128);
  refused(with_input, parts.second, 300, "128 values of input");
  // Where rows come from elsewhere tokens are only counted, but none is negative.
  const std::vector<int32_t> beyond = {1, 2, 300};
  const std::vector<int32_t> negative = {1, 2, -1};
  with_input = {beyond, {&slice, 1}, outputs, values};
  check_batch(with_input, kLimits, step_shape(parts.second), 300);
  refused({beyond, {&slice, 1}, outputs}, whole, 300, "token 300 is outside");
  refused({negative, {&slice, 1}, outputs, values}, parts.second, 300, "token -1 is outside");
}

TEST_CASE("batch: room and growth are whose who cut the step") {
  const auto pool = make_digest_pool({4, 0});
  KvCache kv(pool, 128);
  const std::vector<int32_t> tokens = {1, 2, 3};
  const BatchSlice slice{&kv, 0, 3};
  const Batch step{tokens, {&slice, 1}, {}};
  Batch part = step;
  part.part = 0;
  const StepShape shape = step_shape(cut(graph(), 1).first);
  reserve_room(part);
  advance(part);
  CHECK(kv.length() == 0);
  CHECK(kv.blocks().empty());
  check_error(ErrorCode::invalid_argument, "without room for its 3 tokens",
              [&] { check_batch(part, kLimits, shape, 192); });
  reserve_room(step);
  check_batch(part, kLimits, shape, 192);
  advance(step);
  CHECK(kv.length() == 3);
}

TEST_CASE("batch: a storage of one device is no part of a step, nor another's") {
  const auto pool = make_digest_pool({4, 0});
  const KvCache kv(pool, 128);
  const Batch whole{};
  Batch part;
  part.part = 1;
  CHECK(&storage_of<DigestStorage>(whole, kv, "digests") == &pool->storage());
  struct Other : KvStorage {};
  check_error(ErrorCode::invalid_argument, "other: a KV cache of another backend",
              [&] { storage_of<Other>(whole, kv, "other"); });
  check_error(ErrorCode::invalid_argument, "digests: a KV cache of another backend",
              [&] { storage_of<DigestStorage>(part, kv, "digests"); });
}
