// A model split over two devices, through the API: the cpu twice stands in for a cpu and a GPU.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "qllm/qllm.hpp"
#include "support/errors.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace {

using qllm::ErrorCode;
using qllm::test::check_error;

constexpr int64_t kLayers = 3;

qllm::OpenOptions options_of(const std::string& device, int64_t layers) {
  qllm::OpenOptions options;
  options.device = device;
  options.gpu_layers = layers;
  options.scheme = "int8";
  options.threads = 2;
  options.max_batch_tokens = 64;
  return options;
}

qllm::Model small_model(const qllm::OpenOptions& options) {
  qllm::SyntheticShape shape;
  shape.d_model = 128;
  shape.d_ff = 192;
  shape.n_layers = kLayers;
  shape.n_heads = 4;
  shape.n_kv_heads = 2;
  shape.head_dim = 32;
  shape.vocab = 500;
  return qllm::Model::synthetic(shape, options);
}

qllm::Model small_model(const std::string& device, int64_t layers) {
  return small_model(options_of(device, layers));
}

std::vector<int32_t> ids(int64_t count, int64_t first) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<int32_t>((first + 37 * i) % 500));
  return out;
}

qllm::GenerateOptions greedy(int64_t max_tokens) {
  qllm::GenerateOptions options;
  options.max_tokens = max_tokens;
  options.temperature = 0;
  return options;
}

}  // namespace

TEST_CASE("hybrid model: says what each device has") {
  const qllm::Model whole = small_model("cpu", 0);
  CHECK(whole.info().parts.empty());
  CHECK(whole.part_seconds().empty());
  CHECK(whole.measure_parts_gbps().empty());
  for (int64_t layers = 0; layers <= kLayers; ++layers) {
    const qllm::Model model = small_model("cpu+cpu", layers);
    const qllm::ModelInfo info = model.info();
    CHECK(info.weight_bytes == whole.info().weight_bytes);
    CHECK(info.bytes_per_token == whole.info().bytes_per_token);
    CHECK(info.kv_bytes_per_token == whole.info().kv_bytes_per_token);
    if (layers == 0 || layers == kLayers) {
      CHECK(info.parts.empty());
      continue;
    }
    REQUIRE(info.parts.size() == 2);
    CHECK(info.parts[0].layers == kLayers - layers);
    CHECK(info.parts[1].layers == layers);
    CHECK(info.parts[0].weight_bytes + info.parts[1].weight_bytes == info.weight_bytes);
    CHECK(info.parts[0].bytes_per_token + info.parts[1].bytes_per_token == info.bytes_per_token);
    CHECK(info.parts[0].kv_bytes_per_token * layers ==
          info.parts[1].kv_bytes_per_token * (kLayers - layers));
    CHECK(info.parts[0].kv_bytes_per_token + info.parts[1].kv_bytes_per_token ==
          info.kv_bytes_per_token);
    CHECK(model.part_seconds() == std::vector<double>{0, 0});
    qllm::Session(model, 64).decode(1);
    for (const double seconds : model.part_seconds()) CHECK(seconds > 0);
  }
}

TEST_CASE("hybrid model: says what the cpu alone would, and knows what it has computed") {
  const qllm::Model whole = small_model("cpu", 0);
  const auto prompt = ids(150, 8);
  const auto expected = qllm::Session(whole, 256).generate_ids(prompt, greedy(20)).ids;
  for (int64_t layers = 1; layers < kLayers; ++layers) {
    const qllm::Model model = small_model("cpu+cpu", layers);
    qllm::Session first(model, 256);
    CHECK(first.generate_ids(prompt, greedy(20)).ids == expected);
    qllm::Session second(model, 256);
    const auto again = second.generate_ids(prompt, greedy(20));
    CHECK(again.ids == expected);
    CHECK(again.reused_tokens == 128);
    second.truncate(70);
    const auto shorter = second.generate_ids(std::span(prompt).first(100), greedy(4));
    CHECK(shorter.reused_tokens == 70);
    CHECK(shorter.ids ==
          qllm::Session(whole, 256).generate_ids(std::span(prompt).first(100), greedy(4)).ids);
  }
}

TEST_CASE("hybrid model: sessions decode together") {
  std::vector<std::vector<float>> results;
  for (const char* device : {"cpu", "cpu+cpu"}) {
    const qllm::Model model = small_model(device, device[3] == '+' ? 2 : 0);
    qllm::Session a(model, 128), b(model, 128);
    a.prefill(ids(70, 3));
    b.prefill(ids(9, 4));
    std::vector<qllm::Session*> both = {&a, &b};
    std::vector<float> logits(2 * 500);
    for (const int32_t id : {5, 6}) {
      qllm::Session::decode_together(both, std::vector<int32_t>{id, id + 1}, logits);
    }
    results.push_back(logits);
  }
  CHECK(results[0] == results[1]);
}

TEST_CASE("hybrid model: a saved session goes on, under the same split only") {
  const qllm::test::TempDir dir;
  const std::string path = dir.path() / "session";
  auto prompt = ids(150, 8);
  std::vector<int32_t> expected;
  {
    const qllm::Model model = small_model("cpu+cpu", 1);
    qllm::Session session(model, 256);
    session.generate_ids(prompt, greedy(3));
    session.save(path);
    prompt = session.tokens();
    prompt.push_back(77);
    expected = session.generate_ids(prompt, greedy(6)).ids;
  }
  const qllm::Model model = small_model("cpu+cpu", 1);
  qllm::Session session(model, 256);
  session.restore(path);
  const auto made = session.generate_ids(prompt, greedy(6));
  CHECK(made.reused_tokens == static_cast<int64_t>(prompt.size()) - 1);
  CHECK(made.ids == expected);
  for (const auto& [device, layers] : {std::pair<const char*, int64_t>{"cpu+cpu", 2}, {"cpu", 0}}) {
    const qllm::Model other = small_model(device, layers);
    qllm::Session of_other(other, 256);
    check_error(ErrorCode::invalid_argument, "found '2: cpu", [&] { of_other.restore(path); });
  }
  // A name that does not fit into the header is shortened, and still tells splits apart.
  qllm::OpenOptions long_name = options_of("reference+reference", 1);
  long_name.kv_format = "int8";
  const qllm::Model slow = small_model(long_name);
  qllm::Session of_slow(slow, 256);
  of_slow.prefill(ids(70, 1));
  of_slow.save(path);
  of_slow.reset();
  of_slow.restore(path);
  CHECK(of_slow.position() == 70);
  long_name.gpu_layers = 2;
  const qllm::Model other = small_model(long_name);
  qllm::Session of_other(other, 256);
  check_error(ErrorCode::invalid_argument, "another KV format", [&] { of_other.restore(path); });
}

TEST_CASE("hybrid model: options") {
  check_error(ErrorCode::invalid_argument, "2 layers asked for a GPU: device cpu has none",
              [&] { small_model("cpu", 2); });
  check_error(ErrorCode::invalid_argument, "gpu_layers: -2", [&] { small_model("cpu", -2); });
  check_error(ErrorCode::unsupported, "how much of its memory is free is not known",
              [&] { small_model("cpu+cpu", -1); });
  qllm::OpenOptions options = options_of("cpu+cpu", 1);
  options.numa = "replicate";
  check_error(ErrorCode::unsupported, "numa replicate", [&] { small_model(options); });
  options = options_of("cpu+cpu", 1);
  options.kv_memory_bytes = 1;
  check_error(ErrorCode::invalid_argument, "do not hold one block", [&] { small_model(options); });
  options.kv_memory_bytes = 0;
  int calls = 0;
  options.progress = [&](std::string_view, double fraction) {
    return ++calls > 0 && fraction < 0.8;
  };
  check_error(ErrorCode::cancelled, "cancelled", [&] { small_model(options); });
}

TEST_CASE("hybrid model: a file, and its packed form mapped by one part and read by the other") {
  const qllm::test::TempDir dir;
  const std::string gguf = dir.path() / "tiny.gguf";
  const std::string packed = dir.path() / "tiny.qllm";
  for (const bool tied : {true, false}) {
    qllm::test::TinyLlamaOptions tiny;
    tiny.n_layers = kLayers;
    tiny.tied_lm_head = tied;
    qllm::test::write_tiny_llama_gguf(gguf, tiny);
    const auto text = [](const std::string& path, const qllm::OpenOptions& options) {
      const qllm::Model model = qllm::Model::open(path, options);
      return qllm::Session(model).generate("Hello world", greedy(20)).ids;
    };
    const auto expected = text(gguf, options_of("cpu", 0));
    CHECK(text(gguf, options_of("cpu+cpu", 2)) == expected);
    qllm::quantize_model(gguf, packed, options_of("cpu+cpu", 2));
    qllm::OpenOptions options = options_of("cpu+cpu", 2);
    for (const char* memory : {"map", "copy"}) {
      options.memory = memory;
      CHECK(text(packed, options) == expected);
      CHECK(qllm::Model::open(packed, options).info().memory == memory);
    }
    check_error(ErrorCode::unsupported, "a packed file runs on the cpu",
                [&] { qllm::Model::open(packed, options_of("cpu+reference", 2)); });
  }
}
