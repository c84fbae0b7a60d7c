// The C API: generating, stopping, and what a model or a session refuses.
#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "api/c_smoke.h"
#include "api/tiny.h"
#include "qllm/qllm.h"
#include "support/temp_dir.h"

namespace {

/// A model and a session, closed at the end.
struct Tiny {
  explicit Tiny(int64_t max_context = 0) {
    qllm_error error;
    qllm_status status = qllm_model_open(qllm::test::tiny_path(), nullptr, &model, &error);
    REQUIRE_MESSAGE(status == QLLM_OK, error.message);
    status = qllm_session_create(model, max_context, &session, &error);
    REQUIRE_MESSAGE(status == QLLM_OK, error.message);
  }
  ~Tiny() {
    qllm_session_destroy(session);
    qllm_model_close(model);
  }
  Tiny(const Tiny&) = delete;
  Tiny& operator=(const Tiny&) = delete;

  qllm_model* model = nullptr;
  qllm_session* session = nullptr;
};

qllm_generate_options greedy(int64_t max_tokens) {
  qllm_generate_options options;
  REQUIRE(qllm_generate_options_init(&options, sizeof options) == QLLM_OK);
  options.max_tokens = max_tokens;
  options.temperature = 0;
  options.ignore_end = 1;
  return options;
}

int append(const char* text, size_t length, void* user) {
  CHECK(text[length] == '\0');
  static_cast<std::string*>(user)->append(text, length);
  return 0;
}

struct Generated {
  qllm_status status = QLLM_INTERNAL;
  std::string text;
  qllm_generate_result result = {};
  qllm_error error = {};
};

Generated generate(qllm_session* session, const std::string& prompt,
                   const qllm_generate_options& options) {
  Generated out;
  out.result.struct_size = sizeof out.result;
  out.status = qllm_session_generate(session, prompt.data(), prompt.size(), &options, append,
                                     &out.text, &out.result, &out.error);
  CHECK(out.error.code == out.status);
  return out;
}

}  // namespace

TEST_CASE("c api: a C program generates what C++ does") {
  char text[256];
  qllm_error error = {};
  REQUIRE_MESSAGE(c_smoke(qllm::test::tiny_path(), text, sizeof text, &error) == QLLM_OK,
                  error.message);
  const auto model = qllm::Model::open(qllm::test::tiny_path());
  qllm::Session session(model, 64);
  qllm::GenerateOptions options;
  options.max_tokens = 8;
  options.temperature = 0;
  CHECK(session.generate("Hello", options).text == text);
}

TEST_CASE("c api: greedy text is the same twice and is told in full") {
  const Tiny tiny;
  const Generated first = generate(tiny.session, "Hello world", greedy(24));
  REQUIRE_MESSAGE(first.status == QLLM_OK, first.error.message);
  CHECK(first.result.finish_reason == QLLM_FINISH_LENGTH);
  CHECK(first.result.generated_tokens == 24);
  CHECK(first.result.prompt_tokens > 0);
  CHECK(first.result.reused_tokens == 0);
  CHECK(first.result.ttft_s > 0);
  CHECK(first.result.decode_s > 0);
  CHECK(!first.text.empty());
  REQUIRE(qllm_session_reset(tiny.session, nullptr) == QLLM_OK);
  CHECK(qllm_session_position(tiny.session) == 0);
  const Generated second = generate(tiny.session, "Hello world", greedy(24));
  CHECK(second.text == first.text);
  CHECK(second.result.reused_tokens == 0);
}

TEST_CASE("c api: a text cut back to its prompt goes on as before") {
  const Tiny tiny;
  const Generated first = generate(tiny.session, "Hello world", greedy(24));
  REQUIRE_MESSAGE(first.status == QLLM_OK, first.error.message);
  const int64_t end = qllm_session_position(tiny.session);
  qllm_error error{};
  CHECK(qllm_session_truncate(tiny.session, end + 1, &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_truncate(tiny.session, -1, &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_position(tiny.session) == end);
  REQUIRE(qllm_session_truncate(tiny.session, first.result.prompt_tokens, &error) == QLLM_OK);
  CHECK(qllm_session_position(tiny.session) == first.result.prompt_tokens);
  const Generated second = generate(tiny.session, "Hello world", greedy(24));
  CHECK(second.text == first.text);
  CHECK(second.result.reused_tokens == first.result.prompt_tokens - 1);
}

TEST_CASE("c api: a seed repeats a sampled text, another seed does not") {
  const Tiny tiny;
  auto options = greedy(24);
  options.temperature = 1.5F;
  options.top_k = 0;
  options.seed = 7;
  const auto first = generate(tiny.session, "Hello", options);
  CHECK(generate(tiny.session, "Hello", options).text == first.text);
  options.seed = 8;
  CHECK(generate(tiny.session, "Hello", options).text != first.text);
}

TEST_CASE("c api: a callback that returns nonzero stops and is not called again") {
  const Tiny tiny;
  const auto options = greedy(64);
  int calls = 0;
  qllm_generate_result result = {};
  result.struct_size = sizeof result;
  const auto stop_at_third = [](const char*, size_t, void* user) {
    return ++*static_cast<int*>(user) == 3 ? 1 : 0;
  };
  CHECK(qllm_session_generate(tiny.session, "Hello", 5, &options, stop_at_third, &calls, &result,
                              nullptr) == QLLM_OK);
  CHECK(calls == 3);
  CHECK(result.finish_reason == QLLM_FINISH_CANCELLED);
  CHECK(result.generated_tokens < 64);
}

TEST_CASE("c api: cancel from another thread stops at the next token") {
  const Tiny tiny;
  const auto options = greedy(-1);
  qllm_generate_result result = {};
  result.struct_size = sizeof result;
  const auto cancel_elsewhere = [](const char*, size_t, void* user) {
    std::thread([&] { qllm_session_cancel(static_cast<qllm_session*>(user)); }).join();
    return 0;
  };
  CHECK(qllm_session_generate(tiny.session, "Hello", 5, &options, cancel_elsewhere, tiny.session,
                              &result, nullptr) == QLLM_OK);
  CHECK(result.finish_reason == QLLM_FINISH_CANCELLED);
  CHECK(result.generated_tokens < 20);
  const Generated next = generate(tiny.session, "Hello", greedy(8));  // and the next goes on
  CHECK(next.result.finish_reason == QLLM_FINISH_LENGTH);
}

TEST_CASE("c api: an exception of a callback does not pass") {
  const Tiny tiny;
  qllm_error error;
  const auto thrower = [](const char*, size_t, void*) -> int { throw std::runtime_error("mine"); };
  CHECK(qllm_session_generate(tiny.session, "Hello", 5, nullptr, thrower, nullptr, nullptr,
                              &error) == QLLM_INTERNAL);
  CHECK(std::string(error.message) == "mine");
  CHECK(generate(tiny.session, "Hello", greedy(4)).status == QLLM_OK);
}

TEST_CASE("c api: the context's end, and prompts that do not fit") {
  const Tiny tiny(16);
  const Generated full = generate(tiny.session, "Hello", greedy(-1));
  CHECK(full.status == QLLM_OK);
  CHECK(full.result.finish_reason == QLLM_FINISH_CONTEXT_FULL);
  CHECK(qllm_session_position(tiny.session) == 16);
  CHECK(qllm_session_decode(tiny.session, 1, nullptr) == QLLM_CONTEXT_FULL);
  CHECK(generate(tiny.session, std::string(200, 'x'), greedy(4)).status == QLLM_CONTEXT_FULL);
  const std::vector<int32_t> ids(17, 5);
  CHECK(qllm_session_prefill(tiny.session, ids.data(), 17, nullptr) == QLLM_CONTEXT_FULL);
  CHECK(generate(tiny.session, "", greedy(4)).status == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_prefill(tiny.session, nullptr, 0, nullptr) == QLLM_INVALID_ARGUMENT);
  CHECK(generate(tiny.session, "Hello", greedy(4)).status == QLLM_OK);

  qllm_session* session = nullptr;
  CHECK(qllm_session_create(tiny.model, 257, &session, nullptr) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_create(tiny.model, -1, &session, nullptr) == QLLM_INVALID_ARGUMENT);
  CHECK(session == nullptr);
}

TEST_CASE("c api: ids outside the vocabulary are refused wherever they come in") {
  const Tiny tiny(64);
  const auto ignore = [](int64_t, int64_t, const float*, int64_t, void*) { return 0; };
  for (const int32_t bad : {-1, 300, INT32_MAX, INT32_MIN}) {
    CAPTURE(bad);
    const int32_t ids[] = {5, bad};
    CHECK(qllm_session_generate_ids(tiny.session, ids, 2, nullptr, nullptr, nullptr, nullptr,
                                    nullptr) == QLLM_INVALID_ARGUMENT);
    CHECK(qllm_session_evaluate(tiny.session, ids, 2, ignore, nullptr, nullptr) ==
          QLLM_INVALID_ARGUMENT);
    CHECK(qllm_session_prefill(tiny.session, ids, 2, nullptr) == QLLM_INVALID_ARGUMENT);
    CHECK(qllm_session_decode(tiny.session, bad, nullptr) == QLLM_INVALID_ARGUMENT);
  }
  CHECK(generate(tiny.session, "Hello", greedy(4)).status == QLLM_OK);
}

TEST_CASE("c api: options out of range are refused") {
  const Tiny tiny(64);
  auto options = greedy(4);
  options.temperature = -1;
  CHECK(generate(tiny.session, "Hello", options).status == QLLM_INVALID_ARGUMENT);
  options = greedy(4);
  options.struct_size = 0;
  CHECK(generate(tiny.session, "Hello", options).status == QLLM_INVALID_ARGUMENT);
  qllm_generate_result result = {};  // its size was forgotten
  CHECK(qllm_session_generate(tiny.session, "Hello", 5, nullptr, nullptr, nullptr, &result,
                              nullptr) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_position(tiny.session) == 0);
}

TEST_CASE("c api: logits come in order, for every token, until the callback stops") {
  const Tiny tiny(64);
  struct Seen {
    int64_t tokens = 0;
    int64_t calls = 0;
  } seen;
  const auto in_order = [](int64_t first, int64_t count, const float*, int64_t vocab, void* user) {
    auto& s = *static_cast<Seen*>(user);
    CHECK(first == s.tokens);
    CHECK(vocab == 300);
    s.tokens += count;
    ++s.calls;
    return 0;
  };
  std::vector<int32_t> ids(40);
  for (int32_t i = 0; i < 40; ++i) ids[static_cast<size_t>(i)] = i;
  CHECK(qllm_session_evaluate(tiny.session, ids.data(), 40, in_order, &seen, nullptr) == QLLM_OK);
  CHECK(seen.tokens == 40);
  CHECK(qllm_session_position(tiny.session) == 40);
  const auto stop = [](int64_t, int64_t, const float*, int64_t, void*) { return 1; };
  CHECK(qllm_session_evaluate(tiny.session, ids.data(), 40, stop, nullptr, nullptr) == QLLM_OK);
}

TEST_CASE("c api: a synthetic model runs by ids and has no text") {
  qllm_synthetic_shape shape;
  REQUIRE(qllm_synthetic_shape_init(&shape, sizeof shape) == QLLM_OK);
  CHECK(shape.d_model == 2048);
  shape.d_model = 128;
  shape.d_ff = 192;
  shape.n_layers = 1;
  shape.n_heads = 4;
  shape.n_kv_heads = 2;
  shape.head_dim = 32;
  shape.vocab = 100;
  qllm_model* model = nullptr;
  qllm_error error;
  REQUIRE_MESSAGE(qllm_model_synthetic(&shape, nullptr, &model, &error) == QLLM_OK, error.message);
  qllm_session* session = nullptr;
  REQUIRE(qllm_session_create(model, 32, &session, &error) == QLLM_OK);
  size_t count = 0;
  CHECK(qllm_model_tokenize(model, "a", 1, 0, nullptr, 0, &count, &error) == QLLM_UNSUPPORTED);
  CHECK(generate(session, "Hello", greedy(4)).status == QLLM_UNSUPPORTED);
  const int32_t ids[] = {1, 2, 3};
  const auto options = greedy(4);
  qllm_generate_result result = {};
  result.struct_size = sizeof result;
  CHECK(qllm_session_generate_ids(session, ids, 3, &options, nullptr, nullptr, &result, &error) ==
        QLLM_OK);
  CHECK(result.generated_tokens == 4);
  qllm_session_destroy(session);
  qllm_model_close(model);

  model = nullptr;
  shape.n_kv_heads = 3;  // does not divide the heads
  CHECK(qllm_model_synthetic(&shape, nullptr, &model, &error) != QLLM_OK);
  CHECK(model == nullptr);
}

TEST_CASE("c api: progress is told, and nonzero cancels the opening") {
  qllm_open_options options;
  REQUIRE(qllm_open_options_init(&options, sizeof options) == QLLM_OK);
  double last = -1;
  options.progress_user = &last;
  options.progress = [](const char* stage, double fraction, void* user) {
    CHECK(stage[0] != '\0');
    auto& before = *static_cast<double*>(user);
    CHECK(fraction >= 0);
    CHECK(fraction <= 1);
    before = fraction;
    return 0;
  };
  qllm_model* model = nullptr;
  REQUIRE(qllm_model_open(qllm::test::tiny_path(), &options, &model, nullptr) == QLLM_OK);
  qllm_model_close(model);
  CHECK(last == 1);
  model = nullptr;
  options.progress = [](const char*, double, void*) { return 1; };
  qllm_error error;
  CHECK(qllm_model_open(qllm::test::tiny_path(), &options, &model, &error) == QLLM_CANCELLED);
  CHECK(model == nullptr);
}

TEST_CASE("c api: a session is saved and restored") {
  const qllm::test::TempDir dir;
  const std::string path = dir.path() / "session";
  const std::string prompt = "Hello world, how are you";
  Tiny tiny;
  const auto made = generate(tiny.session, prompt, greedy(8));
  REQUIRE(made.status == QLLM_OK);
  qllm_error error;
  REQUIRE(qllm_session_save(tiny.session, path.c_str(), &error) == QLLM_OK);
  const int64_t position = qllm_session_position(tiny.session);
  size_t count = 0;
  REQUIRE(qllm_session_tokens(tiny.session, nullptr, 0, &count, &error) == QLLM_OK);
  CHECK(static_cast<int64_t>(count) == position);
  std::vector<int32_t> ids(count);
  CHECK(qllm_session_tokens(tiny.session, ids.data(), count - 1, &count, &error) ==
        QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_tokens(tiny.session, ids.data(), count, &count, &error) == QLLM_OK);

  Tiny other;
  REQUIRE_MESSAGE(qllm_session_restore(other.session, path.c_str(), &error) == QLLM_OK,
                  error.message);
  CHECK(qllm_session_position(other.session) == position);
  const auto again = generate(other.session, prompt, greedy(8));
  CHECK(again.text == made.text);
  CHECK(again.result.reused_tokens == again.result.prompt_tokens - 1);

  CHECK(qllm_session_restore(other.session, (path + "-no").c_str(), &error) == QLLM_NOT_FOUND);
  CHECK(qllm_session_save(other.session, (path + "/x").c_str(), &error) == QLLM_IO);
  CHECK(qllm_session_save(nullptr, path.c_str(), &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_save(other.session, nullptr, &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_restore(nullptr, path.c_str(), &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_restore(other.session, nullptr, &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_session_tokens(nullptr, nullptr, 0, &count, &error) == QLLM_INVALID_ARGUMENT);
}

TEST_CASE("c api: format and memory of keys and values") {
  qllm_open_options options;
  REQUIRE(qllm_open_options_init(&options, sizeof options) == QLLM_OK);
  CHECK(options.kv_format == nullptr);
  CHECK(options.kv_memory_bytes == 0);
  options.kv_memory_bytes = 64 * 256;  // one block of the tiny model
  qllm_error error;
  qllm_model* model = nullptr;
  REQUIRE(qllm_model_open(qllm::test::tiny_path(), &options, &model, &error) == QLLM_OK);
  qllm_session* session = nullptr;
  REQUIRE(qllm_session_create(model, 0, &session, &error) == QLLM_OK);
  const std::vector<int32_t> ids(65, 5);
  CHECK(qllm_session_prefill(session, ids.data(), 65, &error) == QLLM_OUT_OF_MEMORY);
  CHECK(qllm_session_prefill(session, ids.data(), 64, &error) == QLLM_OK);
  qllm_session_destroy(session);
  qllm_model_close(model);
  options.kv_format = "fp8";
  CHECK(qllm_model_open(qllm::test::tiny_path(), &options, &model, &error) ==
        QLLM_INVALID_ARGUMENT);
}
