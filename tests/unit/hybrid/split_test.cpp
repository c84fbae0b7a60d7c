#include "hybrid/split.h"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "backend/packed_linear.h"
#include "graph/cut.h"
#include "model/llama.h"
#include "model/synthetic.h"

namespace {

using namespace qllm;
using namespace qllm::hybrid;

/// Layers of 100 bytes each, a head of 30.
DeviceRoom room(int64_t available, int64_t kv = 0, int64_t reserve = 0) {
  DeviceRoom r;
  r.available = available;
  r.reserve = reserve;
  r.kv_per_layer = kv;
  r.weights = {130, 230, 330, 430};
  return r;
}

}  // namespace

TEST_CASE("split: as many layers as fit, with the head") {
  CHECK(layers_that_fit(room(0)) == 0);
  CHECK(layers_that_fit(room(129)) == 0);
  CHECK(layers_that_fit(room(130)) == 1);
  CHECK(layers_that_fit(room(229)) == 1);
  CHECK(layers_that_fit(room(230)) == 2);
  CHECK(layers_that_fit(room(430)) == 4);
  CHECK(layers_that_fit(room(std::numeric_limits<int64_t>::max())) == 4);
}

TEST_CASE("split: keys, values and the reserve take their room first") {
  CHECK(layers_that_fit(room(139, 10)) == 0);
  CHECK(layers_that_fit(room(140, 10)) == 1);
  CHECK(layers_that_fit(room(249, 10)) == 1);
  CHECK(layers_that_fit(room(250, 10)) == 2);
  CHECK(layers_that_fit(room(250 + 7, 10, 7)) == 2);
  CHECK(layers_that_fit(room(250 + 6, 10, 7)) == 1);
  CHECK(layers_that_fit(room(100, 0, 200)) == 0);
  // A budget for keys and values may be any number.
  CHECK(layers_that_fit(room(1000, std::numeric_limits<int64_t>::max())) == 0);
  CHECK(layers_that_fit(DeviceRoom{}) == 0);
}

TEST_CASE("split: what a model takes on a device") {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 320;
  c.d_model = 64;
  c.d_ff = 128;
  c.n_layers = 3;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 16;
  c.rotary_dim = 16;
  c.context_length = 128;
  const Graph graph = build_llama(c);
  const SyntheticSource source(graph, 1);
  BackendOptions options;
  options.scheme = {SchemeKind::int8};
  const auto device = make_backend("cpu", options);
  options.limits = {512, 64};
  const DeviceRoom plain = device_room(graph, source, *device, options);
  CHECK(plain.available == 0);
  // int8 codes with a float scale and an integer sum per output; V's 32 rows of 128 end a block of
  // 64, which takes a second term; two gains.
  const int64_t qkv = 128 * (64 + 8) + 64 * (64 + 8);
  const int64_t layer = qkv + 64 * (64 + 8) + 256 * (64 + 8) + 64 * (128 + 8) + 2 * 64 * 4;
  const int64_t head = 320 * (64 + 8) + 64 * 4;
  REQUIRE(plain.weights.size() == 3);
  for (int64_t n = 1; n <= 3; ++n) {
    CHECK(plain.weights[static_cast<size_t>(n - 1)] == n * layer + head);
  }
  // 8,192 tokens: 128 blocks of one layer.
  CHECK(plain.kv_per_layer == 128 * device->kv_block_bytes({1, 2, 16}));
  options.kv_memory_bytes = 3001;
  CHECK(device_room(graph, source, *device, options).kv_per_layer == 1001);
  // The widest buffers of a step, at most a handful of them.
  const int64_t buffers = plain.reserve - (int64_t{256} << 20);
  CHECK(buffers >= 2 * 4 * (512 * 256 + 64 * 320));
  CHECK(buffers <= 5 * 2 * 4 * (512 * 256 + 64 * 320));
  const KvShape shape = kv_shape(cut(graph, 1).second);
  CHECK((shape.n_layers == 2 && shape.n_kv_heads == 2 && shape.head_dim == 16));
}
