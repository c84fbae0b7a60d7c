// The C++ API on a tiny model: exceptions, reuse of a common prefix, threads, lifetimes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "api/tiny.h"
#include "support/temp_dir.h"

namespace {

using qllm::test::greedy;
using qllm::test::open_tiny;

template <typename Fn>
qllm::ErrorCode code_of(Fn&& fn) {
  try {
    fn();
  } catch (const qllm::Error& e) {
    CHECK(std::strlen(e.what()) > 0);
    return e.code();
  }
  return qllm::ErrorCode::ok;
}

std::string fresh_text(const qllm::Model& model, const std::string& prompt, int64_t tokens) {
  qllm::Session session(model);
  return session.generate(prompt, greedy(tokens)).text;
}

std::vector<float> all_logits(const qllm::Model& model, const std::vector<int32_t>& ids) {
  qllm::Session session(model);
  std::vector<float> out;
  session.evaluate(ids, [&](int64_t, int64_t, std::span<const float> logits) {
    out.insert(out.end(), logits.begin(), logits.end());
    return true;
  });
  return out;
}

}  // namespace

TEST_CASE("cpp api: errors arrive as qllm::Error, and as std::runtime_error") {
  using qllm::ErrorCode;
  CHECK(code_of([] { qllm::Model::open("/nowhere/model.gguf"); }) == ErrorCode::not_found);
  CHECK(code_of([] { qllm::inspect_model("/"); }) == ErrorCode::io);
  CHECK(code_of([] { qllm::Vocabulary::open("/"); }) == ErrorCode::io);
  CHECK_THROWS_AS(qllm::Model::open("/nowhere/model.gguf"), std::runtime_error);
  qllm::OpenOptions options;
  options.device = "abacus";
  CHECK(code_of([&] { qllm::Model::open(qllm::test::tiny_path(), options); }) != ErrorCode::ok);
  options.device = "cpu";
  options.scheme = "fp32";
  CHECK(code_of([&] { qllm::Model::open(qllm::test::tiny_path(), options); }) != ErrorCode::ok);
  options.scheme = "";
  options.isa = "sse9";
  CHECK(code_of([&] { qllm::Model::open(qllm::test::tiny_path(), options); }) ==
        ErrorCode::invalid_argument);
}

TEST_CASE("cpp api: what inspecting predicts is what opening finds") {
  const auto seen = qllm::inspect_model(qllm::test::tiny_path());
  const auto info = open_tiny().info();
  CHECK(seen.architecture == info.architecture);
  CHECK(seen.tokenizer == info.tokenizer);
  CHECK(seen.parameters == info.parameters);
  CHECK(seen.tensors.size() == info.tensors.size());
  CHECK(seen.context_length == 256);
  CHECK(seen.kv_bytes_per_token == info.kv_bytes_per_token);
  CHECK(seen.weight_bytes == info.weight_bytes);
  CHECK(seen.bytes_per_token == info.bytes_per_token);
  CHECK(seen.rotated == info.rotated);
}

TEST_CASE("cpp api: int8 weights are rotated unless asked otherwise, fp32 never") {
  qllm::OpenOptions options;
  options.device = "cpu";
  const auto rotated = qllm::Model::open(qllm::test::tiny_path(), options);
  CHECK(rotated.info().rotated);
  options.rotate = false;
  const auto plain = qllm::Model::open(qllm::test::tiny_path(), options);
  CHECK_FALSE(plain.info().rotated);
  CHECK_FALSE(qllm::inspect_model(qllm::test::tiny_path(), options).rotated);
  CHECK(plain.info().parameters == rotated.info().parameters);  // a tied table still counts once
  const auto ids = plain.tokenize("Hello world");
  CHECK(all_logits(plain, ids) != all_logits(rotated, ids));
  options.rotate = true;
  options.device = "reference";
  CHECK_FALSE(qllm::Model::open(qllm::test::tiny_path(), options).info().rotated);  // fp32
  options.scheme = "int8";
  CHECK(qllm::Model::open(qllm::test::tiny_path(), options).info().rotated);
}

TEST_CASE("cpp api: a vocabulary alone speaks as its model does") {
  const auto model = open_tiny();
  const auto vocabulary = qllm::Vocabulary::open(qllm::test::tiny_path());
  const std::string text = "Hello world, \xC3\xA4 and <|im_end|>\n";
  const auto ids = model.tokenize(text, true, true);
  CHECK(vocabulary.tokenize(text, true, true) == ids);
  CHECK(vocabulary.detokenize(ids, true) == model.detokenize(ids, true));
  CHECK(vocabulary.detokenize(vocabulary.tokenize(text, false, false)) == text);
}

TEST_CASE("cpp api: a common prefix is not computed again and changes nothing") {
  for (const char* device : {"reference", "cpu"}) {
    CAPTURE(device);
    const auto model = open_tiny(device);
    qllm::Session session(model);
    const std::string prefix = "Hello world and the world of the sea";
    const auto first = session.generate(prefix, greedy(16));
    CHECK(first.reused_tokens == 0);
    const auto again = session.generate(prefix, greedy(16));
    CHECK(again.reused_tokens == first.prompt_tokens - 1);  // the last one's logits are wanted
    CHECK(again.text == first.text);
    const std::string other = prefix + " then on to another end";
    const auto longer = session.generate(other, greedy(16));
    CHECK(longer.reused_tokens > 0);
    CHECK(longer.reused_tokens < longer.prompt_tokens);
    CHECK(longer.text == fresh_text(model, other, 16));
    const auto back = session.generate(prefix, greedy(16));
    CHECK(back.text == first.text);
  }
}

TEST_CASE("cpp api: an answer continues in the cache where the next prompt repeats it") {
  const auto model = open_tiny("reference");
  qllm::Session session(model);
  auto ids = model.tokenize("Hello world");
  const auto first = session.generate_ids(ids, greedy(12));
  REQUIRE(first.ids.size() == 12);
  ids.insert(ids.end(), first.ids.begin(), first.ids.end());
  ids.push_back(7);
  const auto second = session.generate_ids(ids, greedy(4));
  CHECK(second.reused_tokens >= second.prompt_tokens - 2);  // all but the last answer token and 7
  qllm::Session fresh(model);
  CHECK(fresh.generate_ids(ids, greedy(4)).ids == second.ids);
}

TEST_CASE("cpp api: logits do not depend on how many tokens share a step") {
  std::vector<int32_t> ids(100);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((7 * i + 3) % 300);
  for (const char* device : {"reference", "cpu"}) {
    CAPTURE(device);
    const auto whole = all_logits(open_tiny(device, 512), ids);
    REQUIRE(whole.size() == ids.size() * 300);
    for (const int64_t chunk : {1, 7, 64}) {
      CAPTURE(chunk);
      CHECK(all_logits(open_tiny(device, chunk), ids) == whole);
    }
  }
}

TEST_CASE("cpp api: evaluate's last logits choose generate's first token") {
  const auto model = open_tiny();
  const auto ids = model.tokenize("Hello world");
  const auto logits = all_logits(model, ids);
  const auto last = logits.end() - 300;
  const auto best = static_cast<int32_t>(std::max_element(last, logits.end()) - last);
  qllm::Session session(model);
  const auto made = session.generate_ids(ids, greedy(1));
  REQUIRE(made.ids.size() == 1);
  CHECK(made.ids[0] == best);
}

TEST_CASE("cpp api: prefill and decode leave the cache that a prompt would") {
  const auto model = open_tiny();
  const auto ids = model.tokenize("Hello world and the sea");
  qllm::Session session(model, 64);
  session.prefill(std::span(ids).first(ids.size() - 1));
  session.decode(ids.back());
  CHECK(session.position() == static_cast<int64_t>(ids.size()));
  const auto made = session.generate_ids(ids, greedy(12));
  CHECK(made.reused_tokens == static_cast<int64_t>(ids.size()) - 1);
  qllm::Session fresh(model, 64);
  CHECK(fresh.generate_ids(ids, greedy(12)).ids == made.ids);
}

TEST_CASE("cpp api: sessions that decode together go on as if alone") {
  for (const char* device : {"reference", "cpu"}) {
    CAPTURE(device);
    const auto model = open_tiny(device, 512);
    std::vector<qllm::Session> sessions;
    std::vector<std::vector<int32_t>> texts;
    std::vector<qllm::Session*> together;
    for (int i = 0; i < 3; ++i) sessions.emplace_back(model, 64);
    for (int i = 0; i < 3; ++i) {
      texts.push_back({5 + i, 17, 40 + 3 * i, 9});
      texts.back().resize(static_cast<size_t>(4 - i));  // of different lengths
      sessions[static_cast<size_t>(i)].prefill(texts.back());
      together.push_back(&sessions[static_cast<size_t>(i)]);
    }
    const std::vector<int32_t> ids = {60, 61, 62};
    std::vector<float> logits(3 * 300);
    qllm::Session::decode_together(together, ids, logits);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(sessions[i].position() == static_cast<int64_t>(texts[i].size()) + 1);
      texts[i].push_back(ids[i]);
      const std::vector<float> alone = all_logits(model, texts[i]);
      CHECK(std::equal(alone.end() - 300, alone.end(),
                       logits.begin() + static_cast<std::ptrdiff_t>(300 * i)));
    }
  }
}

TEST_CASE("cpp api: decoding together is refused where it makes no sense") {
  const auto model = open_tiny();
  const auto other = open_tiny();
  qllm::Session a(model, 8);
  qllm::Session b(model, 8);
  qllm::Session c(other, 8);
  std::vector<float> logits(2 * 300);
  const auto code = [&](std::vector<qllm::Session*> sessions, std::vector<int32_t> ids) {
    return code_of([&] { qllm::Session::decode_together(sessions, ids, logits); });
  };
  CHECK(code({}, {}) == qllm::ErrorCode::invalid_argument);
  CHECK(code({&a, &a}, {1, 2}) == qllm::ErrorCode::invalid_argument);
  CHECK(code({&a, &c}, {1, 2}) == qllm::ErrorCode::invalid_argument);
  CHECK(code({&a, &b}, {1}) == qllm::ErrorCode::invalid_argument);
  CHECK(code({&a}, {1}) == qllm::ErrorCode::invalid_argument);  // logits of another length
  CHECK(code({&a, &b}, {1, 300}) == qllm::ErrorCode::invalid_argument);
  b.prefill(std::vector<int32_t>(8, 1));
  CHECK(code({&a, &b}, {1, 2}) == qllm::ErrorCode::context_full);
  CHECK(a.position() == 0);
}

TEST_CASE("cpp api: the text handed out is the text returned, and valid as it comes") {
  const auto model = open_tiny();
  qllm::Session session(model);
  std::string streamed;
  const auto made = session.generate("Hello", greedy(64), [&](std::string_view text) {
    CHECK(!text.empty());
    CHECK((static_cast<unsigned char>(text.front()) & 0xC0U) != 0x80U);  // starts a character
    streamed += text;
    return true;
  });
  CHECK(made.text == streamed);
  CHECK(made.ids.size() == 64);
  CHECK(made.finish_reason == qllm::FinishReason::length);
}

TEST_CASE("cpp api: an exception of a callback comes through, and the session goes on") {
  const auto model = open_tiny();
  qllm::Session session(model);
  const auto expected = fresh_text(model, "Hello", 8);
  CHECK_THROWS_AS(session.generate("Hello", greedy(8), [](std::string_view) -> bool { throw 42; }),
                  int);
  CHECK(session.generate("Hello", greedy(8)).text == expected);
}

TEST_CASE("cpp api: a session outlives the handle of its model and can be moved") {
  const auto expected = fresh_text(open_tiny(), "Hello", 8);
  std::vector<qllm::Session> sessions;
  {
    const auto model = open_tiny();
    sessions.emplace_back(model);
  }
  qllm::Session moved = std::move(sessions.front());
  sessions.clear();
  CHECK(moved.generate("Hello", greedy(8)).text == expected);
}

TEST_CASE("cpp api: two models in two threads do not meet") {
  const auto a = open_tiny("cpu");
  const auto b = open_tiny("reference");
  const auto expected_a = fresh_text(a, "Hello world", 32);
  const auto expected_b = fresh_text(b, "the sea", 32);
  std::string text_a;
  std::string text_b;
  std::thread other([&] { text_a = fresh_text(a, "Hello world", 32); });
  text_b = fresh_text(b, "the sea", 32);
  other.join();
  CHECK(text_a == expected_a);
  CHECK(text_b == expected_b);
}

TEST_CASE("cpp api: two sessions of one model in two threads") {
  const auto model = open_tiny();
  const auto expected_a = fresh_text(model, "Hello world", 32);
  const auto expected_b = fresh_text(model, "the sea", 32);
  std::string text_a;
  std::string text_b;
  std::thread other([&] { text_a = fresh_text(model, "Hello world", 32); });
  text_b = fresh_text(model, "the sea", 32);
  other.join();
  CHECK(text_a == expected_a);
  CHECK(text_b == expected_b);
}

TEST_CASE("cpp api: two cpu models at once, opened in their own threads") {
  const auto expected = fresh_text(open_tiny(), "Hello", 16);
  std::vector<std::string> texts(2);
  std::vector<std::thread> threads;
  for (auto& text : texts) {
    threads.emplace_back([&text] { text = fresh_text(open_tiny(), "Hello", 16); });
  }
  for (auto& thread : threads) thread.join();
  CHECK(texts[0] == expected);
  CHECK(texts[1] == expected);
}

TEST_CASE("cpp api: a packed model gives the same text, knows its file, and shares sessions") {
  const qllm::test::TempDir dir;
  const std::string packed = dir.path() / "m.qllm";
  const qllm::QuantizeResult made = qllm::quantize_model(qllm::test::tiny_path(), packed);
  CHECK(made.bytes > 0);
  CHECK(made.layers.size() == 9);  // QKV, out, gate and up, down of two layers, and the LM head
  const qllm::Model direct = open_tiny();
  const qllm::Model model = qllm::Model::open(packed);
  CHECK(model.info().packed_file == packed);
  CHECK(model.info().weight_bytes == direct.info().weight_bytes);
  CHECK(direct.info().packed_file.empty());
  CHECK(direct.info().memory == "copy");
  CHECK(fresh_text(model, "Hello", 20) == fresh_text(direct, "Hello", 20));
  qllm::Session writer(direct);
  writer.generate("Hello", greedy(4));
  writer.save(dir.path() / "session");
  qllm::Session reader(model);
  reader.restore(dir.path() / "session");
  CHECK(reader.tokens() == writer.tokens());
  qllm::verify_packed(packed);
  CHECK(code_of([&] { qllm::verify_packed(qllm::test::tiny_path()); }) ==
        qllm::ErrorCode::bad_format);
  CHECK(qllm::inspect_model(packed).rotated);
}

TEST_CASE("cpp api: packing can be cancelled, and leaves nothing") {
  const qllm::test::TempDir dir;
  qllm::OpenOptions options;
  options.progress = [](std::string_view, double) { return false; };
  CHECK(code_of([&] {
          qllm::quantize_model(qllm::test::tiny_path(), dir.path() / "m.qllm", options);
        }) == qllm::ErrorCode::cancelled);
  CHECK(std::filesystem::is_empty(dir.path()));
  options.progress = nullptr;
  const std::string packed = dir.path() / "m.qllm";
  qllm::quantize_model(qllm::test::tiny_path(), packed, options);
  options.progress = [](std::string_view, double) { return false; };
  CHECK(code_of([&] { qllm::Model::open(packed, options); }) == qllm::ErrorCode::cancelled);
}
