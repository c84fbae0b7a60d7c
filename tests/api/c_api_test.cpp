// The C API: errors as values, structs that carry their size, callers' buffers.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "api/tiny.h"
#include "qllm/qllm.h"
#include "support/temp_dir.h"

namespace {

using qllm::test::TempDir;
using qllm::test::tiny_path;

qllm_model* open_model() {
  qllm_error error;
  qllm_model* model = nullptr;
  const qllm_status status = qllm_model_open(tiny_path(), nullptr, &model, &error);
  REQUIRE_MESSAGE(status == QLLM_OK, error.message);
  return model;
}

/// The status of opening `path`, checked to be told in the same words and to leave `model` alone.
qllm_status open_status(const std::string& path, const qllm_open_options* options = nullptr) {
  qllm_error error = {};
  qllm_model* model = nullptr;
  const qllm_status status = qllm_model_open(path.c_str(), options, &model, &error);
  CHECK(error.code == status);
  CHECK((status == QLLM_OK) == (error.message[0] == '\0'));
  CHECK((status == QLLM_OK) == (model != nullptr));
  CHECK(std::strchr(error.message, '\n') == nullptr);
  if (status != QLLM_OK && options == nullptr) {
    CHECK_MESSAGE(std::string(error.message).find(path) != std::string::npos, error.message);
  }
  qllm_model_close(model);
  return status;
}

std::string write(const TempDir& dir, const char* name, const std::string& bytes) {
  const std::string path = (dir.path() / name).string();
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("c api: what cannot be opened is a status and a message that names the file") {
  const TempDir dir;
  const std::string good = read(tiny_path());
  REQUIRE(good.size() > 10000);
  CHECK(open_status((dir.path() / "missing.gguf").string()) == QLLM_NOT_FOUND);
  CHECK(open_status(dir.path().string()) == QLLM_IO);
  CHECK(open_status(write(dir, "empty.gguf", "")) == QLLM_BAD_FORMAT);
  CHECK(open_status(write(dir, "text.gguf", "not a model at all, but long enough to be one")) ==
        QLLM_BAD_FORMAT);
  for (const size_t size : {size_t{3}, size_t{40}, good.size() / 2, good.size() - 1}) {
    CAPTURE(size);
    CHECK(open_status(write(dir, "cut.gguf", good.substr(0, size))) == QLLM_BAD_FORMAT);
  }
  CHECK(open_status(write(dir, "whole.gguf", good)) == QLLM_OK);
}

TEST_CASE("c api: a message longer than its buffer is cut between characters") {
  std::string path = "/";
  for (int i = 0; i < 400; ++i) path += "\xC3\xA4";  // 2 bytes each
  qllm_model* model = nullptr;
  for (const char* prefix : {"", "x"}) {  // one of them puts the cut into a character
    qllm_error error;
    CHECK(qllm_model_open((prefix + path).c_str(), nullptr, &model, &error) != QLLM_OK);
    const std::string message(error.message);
    CHECK(message.size() >= sizeof(error.message) - 2);
    CHECK(message.substr(message.size() - 2) == "\xC3\xA4");
  }
  CHECK(model == nullptr);
}

TEST_CASE("c api: NULL is an invalid argument, not a crash") {
  qllm_model* model = open_model();
  qllm_session* session = nullptr;
  REQUIRE(qllm_session_create(model, 32, &session, nullptr) == QLLM_OK);
  const auto bad = QLLM_INVALID_ARGUMENT;
  char text[8];
  int32_t ids[8] = {};
  size_t n = 0;
  double gbps = 0;
  qllm_model_info info = {};
  info.struct_size = sizeof info;
  const auto on_logits = [](int64_t, int64_t, const float*, int64_t, void*) { return 0; };

  CHECK(qllm_model_open(nullptr, nullptr, &model, nullptr) == bad);
  CHECK(qllm_model_open(tiny_path(), nullptr, nullptr, nullptr) == bad);
  CHECK(qllm_model_synthetic(nullptr, nullptr, nullptr, nullptr) == bad);
  CHECK(qllm_open_options_init(nullptr, sizeof(qllm_open_options)) == bad);
  CHECK(qllm_synthetic_shape_init(nullptr, sizeof(qllm_synthetic_shape)) == bad);
  CHECK(qllm_generate_options_init(nullptr, sizeof(qllm_generate_options)) == bad);
  CHECK(qllm_model_get_info(nullptr, &info, nullptr) == bad);
  CHECK(qllm_model_get_info(model, nullptr, nullptr) == bad);
  CHECK(qllm_model_describe_machine(nullptr, text, 8, &n, nullptr) == bad);
  CHECK(qllm_model_describe_machine(model, text, 8, nullptr, nullptr) == bad);
  CHECK(qllm_model_describe_machine(model, nullptr, 8, &n, nullptr) == bad);
  CHECK(qllm_describe_machine(nullptr, nullptr, 0, nullptr, nullptr) == bad);
  CHECK(qllm_model_measure_read_gbps(nullptr, 0, &gbps, nullptr) == bad);
  CHECK(qllm_model_measure_read_gbps(model, 0, nullptr, nullptr) == bad);
  CHECK(qllm_model_tokenize(nullptr, "a", 1, 0, ids, 8, &n, nullptr) == bad);
  CHECK(qllm_model_tokenize(model, nullptr, 1, 0, ids, 8, &n, nullptr) == bad);
  CHECK(qllm_model_tokenize(model, "a", 1, 0, nullptr, 8, &n, nullptr) == bad);
  CHECK(qllm_model_tokenize(model, "a", 1, 0, ids, 8, nullptr, nullptr) == bad);
  CHECK(qllm_model_detokenize(model, nullptr, 1, 0, text, 8, &n, nullptr) == bad);
  CHECK(qllm_model_render_chat(model, nullptr, 1, 1, text, 8, &n, nullptr) == bad);
  const qllm_chat_message half = {"user", nullptr};
  CHECK(qllm_model_render_chat(model, &half, 1, 1, nullptr, 0, &n, nullptr) == bad);
  CHECK(qllm_session_create(nullptr, 0, &session, nullptr) == bad);
  CHECK(qllm_session_create(model, 0, nullptr, nullptr) == bad);
  CHECK(qllm_session_reset(nullptr, nullptr) == bad);
  CHECK(qllm_session_truncate(nullptr, 0, nullptr) == bad);
  CHECK(qllm_session_generate(nullptr, "a", 1, nullptr, nullptr, nullptr, nullptr, nullptr) == bad);
  CHECK(qllm_session_generate(session, nullptr, 1, nullptr, nullptr, nullptr, nullptr, nullptr) ==
        bad);
  CHECK(qllm_session_generate_ids(session, nullptr, 1, nullptr, nullptr, nullptr, nullptr,
                                  nullptr) == bad);
  CHECK(qllm_session_evaluate(session, ids, 1, nullptr, nullptr, nullptr) == bad);
  CHECK(qllm_session_evaluate(nullptr, ids, 1, on_logits, nullptr, nullptr) == bad);
  CHECK(qllm_session_evaluate(session, nullptr, 1, on_logits, nullptr, nullptr) == bad);
  CHECK(qllm_session_prefill(nullptr, ids, 1, nullptr) == bad);
  CHECK(qllm_session_decode(nullptr, 0, nullptr) == bad);
  CHECK(qllm_session_position(nullptr) == -1);
  CHECK(qllm_session_max_context(nullptr) == -1);
  qllm_session_cancel(nullptr);
  qllm_session_destroy(nullptr);
  qllm_model_close(nullptr);

  CHECK(qllm_session_position(session) == 0);
  CHECK(qllm_session_max_context(session) == 32);
  qllm_model_close(model);  // before its session
  CHECK(qllm_session_decode(session, 1, nullptr) == QLLM_OK);
  qllm_session_destroy(session);
}

TEST_CASE("c api: options of every size that a version may have") {
  qllm_open_options options;
  REQUIRE(qllm_open_options_init(&options, sizeof options) == QLLM_OK);
  CHECK(options.struct_size == sizeof options);
  CHECK(options.max_batch_tokens == 512);
  CHECK(options.large_pages == 1);
  CHECK(options.rotate == 1);
  CHECK(options.device == nullptr);
  CHECK(open_status(tiny_path(), &options) == QLLM_OK);

  options.max_batch_tokens = -5;  // what lies behind the end of a shorter struct is not looked at
  CHECK(open_status(tiny_path(), &options) == QLLM_INVALID_ARGUMENT);
  options.struct_size = offsetof(qllm_open_options, max_batch_tokens);
  CHECK(open_status(tiny_path(), &options) == QLLM_OK);
  options.device = "abacus";  // what lies before it is
  CHECK(open_status(tiny_path(), &options) != QLLM_OK);
  for (const size_t size : {size_t{0}, sizeof(size_t), sizeof(size_t) + 4, sizeof options - 1}) {
    CAPTURE(size);
    options.struct_size = size;
    CHECK(open_status(tiny_path(), &options) == QLLM_INVALID_ARGUMENT);
    CHECK(qllm_open_options_init(&options, size) == QLLM_INVALID_ARGUMENT);
  }

  struct {
    qllm_open_options known;
    char tail[64];
  } longer;  // of a newer header
  std::memset(&longer, 0x5A, sizeof longer);
  CHECK(qllm_open_options_init(&longer.known, sizeof longer) == QLLM_OK);
  CHECK(longer.known.struct_size == sizeof longer);
  CHECK(longer.tail[0] == 0);
  CHECK(longer.tail[63] == 0);
  longer.tail[5] = 7;
  CHECK(open_status(tiny_path(), &longer.known) == QLLM_OK);

  struct {
    qllm_generate_options known;
    char canary;
  } shorter;
  std::memset(&shorter, 0x5A, sizeof shorter);
  const size_t size = offsetof(qllm_generate_options, temperature);
  CHECK(qllm_generate_options_init(&shorter.known, size) == QLLM_OK);
  CHECK(shorter.known.max_tokens == 256);
  char untouched[sizeof(float)];
  std::memset(untouched, 0x5A, sizeof untouched);
  CHECK(std::memcmp(&shorter.known.temperature, untouched, sizeof untouched) == 0);
}

TEST_CASE("c api: where the weights lie, under every policy") {
  qllm_open_options options;
  REQUIRE(qllm_open_options_init(&options, sizeof options) == QLLM_OK);
  CHECK(options.numa == nullptr);
  options.device = "cpu";
  for (const char* policy : {"split", "interleave", "local", "replicate"}) {
    options.numa = policy;
    qllm_model* model = nullptr;
    REQUIRE(qllm_model_open(tiny_path(), &options, &model, nullptr) == QLLM_OK);
    qllm_placement placement;
    placement.struct_size = sizeof placement;
    CHECK(qllm_model_get_placement(model, &placement, nullptr) == QLLM_OK);
    CHECK(placement.local_bytes + placement.remote_bytes + placement.nowhere_bytes > 0);
    placement.struct_size = 0;
    CHECK(qllm_model_get_placement(model, &placement, nullptr) == QLLM_INVALID_ARGUMENT);
    CHECK(qllm_model_get_placement(model, nullptr, nullptr) == QLLM_INVALID_ARGUMENT);
    qllm_model_close(model);
  }
  options.numa = "spread";
  CHECK(open_status(tiny_path(), &options) == QLLM_INVALID_ARGUMENT);
}

TEST_CASE("c api: layers for a second device") {
  qllm_open_options options;
  REQUIRE(qllm_open_options_init(&options, sizeof options) == QLLM_OK);
  CHECK(options.gpu_layers == -1);
  options.device = "cpu";
  CHECK(open_status(tiny_path(), &options) == QLLM_OK);
  options.gpu_layers = 1;
  CHECK(open_status(tiny_path(), &options) == QLLM_INVALID_ARGUMENT);
  options.device = "cpu+cpu";
  CHECK(open_status(tiny_path(), &options) == QLLM_OK);
  options.gpu_layers = -2;
  CHECK(open_status(tiny_path(), &options) == QLLM_INVALID_ARGUMENT);
  // Of a program built before there was such a field: as many as fit, which a cpu cannot say.
  options.struct_size = offsetof(qllm_open_options, gpu_layers);
  CHECK(open_status(tiny_path(), &options) == QLLM_UNSUPPORTED);
}

TEST_CASE("c api: info fills as much as the caller's struct holds") {
  qllm_model* model = open_model();
  qllm_model_info info;
  std::memset(&info, 0x5A, sizeof info);
  info.struct_size = offsetof(qllm_model_info, context_length);
  CHECK(qllm_model_get_info(model, &info, nullptr) == QLLM_OK);
  CHECK(std::string(info.architecture) == "llama");
  CHECK(info.d_model == 64);
  CHECK(info.context_length == 0x5A5A5A5A5A5A5A5A);
  info.struct_size = sizeof info;
  CHECK(qllm_model_get_info(model, &info, nullptr) == QLLM_OK);
  CHECK(info.context_length == 256);
  CHECK(info.vocab_size == 300);
  CHECK(info.has_chat_template == 1);
  CHECK(info.rotated == 1);
  CHECK(info.weight_bytes > 0);
  CHECK(info.bytes_per_token > 0);
  CHECK(info.file_bytes == static_cast<int64_t>(read(tiny_path()).size()));
  info.struct_size = 0;
  CHECK(qllm_model_get_info(model, &info, nullptr) == QLLM_INVALID_ARGUMENT);
  qllm_model_close(model);
}

TEST_CASE("c api: text and ids go into callers' buffers, all or nothing") {
  qllm_model* model = open_model();
  const std::string text = "Hello world and the sea";
  size_t count = 0;
  CHECK(qllm_model_tokenize(model, text.data(), text.size(), 0, nullptr, 0, &count, nullptr) ==
        QLLM_OK);
  REQUIRE(count > 1);
  std::vector<int32_t> ids(count, -7);
  size_t found = 0;
  CHECK(qllm_model_tokenize(model, text.data(), text.size(), 0, ids.data(), count - 1, &found,
                            nullptr) == QLLM_INVALID_ARGUMENT);
  CHECK(found == count);
  CHECK(ids[0] == -7);
  CHECK(qllm_model_tokenize(model, text.data(), text.size(), 0, ids.data(), count, &found,
                            nullptr) == QLLM_OK);
  CHECK(qllm_model_tokenize(model, nullptr, 0, 0, nullptr, 0, &found, nullptr) == QLLM_OK);
  CHECK(found == 0);
  CHECK(qllm_model_tokenize(model, "a", 1, QLLM_SHOW_SPECIAL, nullptr, 0, &found, nullptr) ==
        QLLM_INVALID_ARGUMENT);

  size_t length = 0;
  CHECK(qllm_model_detokenize(model, ids.data(), count, 0, nullptr, 0, &length, nullptr) ==
        QLLM_OK);
  CHECK(length == text.size());
  std::vector<char> buffer(length + 1, '#');
  CHECK(qllm_model_detokenize(model, ids.data(), count, 0, buffer.data(), length, &length,
                              nullptr) == QLLM_INVALID_ARGUMENT);  // no room for the NUL
  CHECK(buffer[0] == '#');
  CHECK(qllm_model_detokenize(model, ids.data(), count, 0, buffer.data(), length + 1, &length,
                              nullptr) == QLLM_OK);
  CHECK(std::string(buffer.data()) == text);
  const int32_t outside = 300;
  CHECK(qllm_model_detokenize(model, &outside, 1, 0, nullptr, 0, &length, nullptr) ==
        QLLM_INVALID_ARGUMENT);
  qllm_model_close(model);
}

TEST_CASE("c api: chat, machine and bandwidth") {
  qllm_model* model = open_model();
  const qllm_chat_message messages[] = {{"user", "Hello"}};
  char text[4096];
  size_t length = 0;
  CHECK(qllm_model_render_chat(model, messages, 1, 1, text, sizeof text, &length, nullptr) ==
        QLLM_OK);
  CHECK(std::string(text) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
  CHECK(length == std::strlen(text));
  size_t ids = 0;
  CHECK(qllm_model_tokenize(model, text, length, QLLM_PARSE_SPECIAL, nullptr, 0, &ids, nullptr) ==
        QLLM_OK);
  CHECK(ids < length);

  CHECK(qllm_model_describe_machine(model, text, sizeof text, &length, nullptr) == QLLM_OK);
  CHECK(std::string(text).find("workers: ") != std::string::npos);
  CHECK(qllm_describe_machine(nullptr, text, sizeof text, &length, nullptr) == QLLM_OK);
  CHECK(std::string(text).find("tiers: ") != std::string::npos);

  double gbps = 0;
  CHECK(qllm_model_measure_read_gbps(model, int64_t{64} << 20, &gbps, nullptr) == QLLM_OK);
  CHECK(gbps > 0);
  CHECK(qllm_model_measure_read_gbps(model, -1, &gbps, nullptr) == QLLM_INVALID_ARGUMENT);
  qllm_model_close(model);
}

TEST_CASE("c api: names of statuses, and the version of both APIs") {
  CHECK(std::string(qllm_status_name(QLLM_OK)) == "ok");
  CHECK(std::string(qllm_status_name(QLLM_INTERNAL)) == "internal");
  CHECK(std::string(qllm_status_name(static_cast<qllm_status>(99))) == "unknown");
  CHECK(qllm_version() == qllm::version());
}

TEST_CASE("c api: a model is packed, opened packed, and cached only where a folder is named") {
  const TempDir dir;
  const std::string packed = (dir.path() / "m.qllm").string();
  qllm_error error = {};
  int64_t bytes = 0;
  REQUIRE(qllm_quantize(tiny_path(), packed.c_str(), nullptr, &bytes, &error) == QLLM_OK);
  CHECK(bytes == static_cast<int64_t>(std::filesystem::file_size(packed)));
  CHECK(open_status(packed) == QLLM_OK);
  CHECK(qllm_quantize(nullptr, packed.c_str(), nullptr, nullptr, &error) == QLLM_INVALID_ARGUMENT);
  CHECK(qllm_quantize(packed.c_str(), packed.c_str(), nullptr, nullptr, &error) ==
        QLLM_INVALID_ARGUMENT);

  qllm_open_options options;
  REQUIRE(qllm_open_options_init(&options, sizeof options) == QLLM_OK);
  CHECK(options.cache_folder == nullptr);
  CHECK(options.cache_bytes > 0);
  const std::string folder = (dir.path() / "cache").string();
  options.cache_folder = folder.c_str();
  for (int i = 0; i < 2; ++i) CHECK(open_status(tiny_path(), &options) == QLLM_OK);
  int copies = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    copies += entry.path().extension() == ".qllm" ? 1 : 0;
  }
  CHECK(copies == 1);
  for (const char* memory : {"map", "copy", "hugetlb"}) {
    options.memory = memory;
    options.lock_memory = 1;
    CHECK(open_status(packed, &options) == QLLM_OK);
  }
  options.memory = "cloud";
  CHECK(open_status(packed, &options) == QLLM_INVALID_ARGUMENT);
}
