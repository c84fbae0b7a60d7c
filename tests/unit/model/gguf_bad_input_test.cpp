// Broken files must be refused with an Error, or load; never crash, hang, or ask for memory that
// the file's size does not justify (which would end in bad_alloc, no Error).
#include <doctest/doctest.h>

#include <chrono>
#include <functional>

#include "model/gguf.h"
#include "support/errors.h"
#include "support/gguf_builder.h"
#include "support/load_gguf.h"
#include "support/tiny_llama.h"

namespace qllm {
namespace {

using test::check_error;
using test::GgufBuilder;
using Bytes = std::vector<std::byte>;

GgufBuilder small_file() {
  GgufBuilder b;
  b.add_string("general.architecture", "llama");
  b.add_u32("llama.block_count", 1);
  b.add_strings("tokenizer.ggml.tokens", {"a", "bc"});
  b.add_f32s("tokenizer.ggml.scores", {0.5F, 1.5F});
  b.add_tensor("a", {2, 32}, GgmlType::q4_1, std::vector<float>(64, 1.0F));
  b.add_tensor("b", {3}, GgmlType::f32, {1, 2, 3});
  return b;
}

void refused(ErrorCode code, const std::string& part, const Bytes& bytes) {
  check_error(code, part, [&] { GgufFile::parse(bytes, "mem"); });
}

void refused(const std::string& part, const std::function<void(GgufBuilder*)>& change) {
  GgufBuilder b = small_file();
  change(&b);
  refused(ErrorCode::bad_format, part, b.finish());
}

/// Either loads or throws Error; any other exception fails the test.
bool loads(std::span<const std::byte> bytes) {
  try {
    test::load_everything(bytes);
    return true;
  } catch (const Error&) {
    return false;
  }
}

Bytes tiny_model() {
  test::TinyLlamaOptions options;
  options.n_layers = 1;
  options.type = GgmlType::q8_0;
  return test::build_tiny_llama_gguf(options);
}

size_t header_bytes(const Bytes& bytes) {
  const auto file = GgufFile::parse(bytes, "mem");
  return static_cast<size_t>(file->tensors().front().data.data() - bytes.data());
}

}  // namespace

TEST_CASE("gguf bad input: every proper prefix of a file is refused") {
  const Bytes bytes = small_file().finish();
  CHECK_NOTHROW(GgufFile::parse(bytes, "mem"));
  for (size_t size = 0; size < bytes.size(); ++size) {
    CAPTURE(size);
    // A copy of that size, so that a sanitizer sees a read past its end.
    const Bytes prefix(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK_THROWS_AS(GgufFile::parse(prefix, "mem"), Error);
  }
}

TEST_CASE("gguf bad input: a model cut anywhere in its header is refused") {
  const Bytes bytes = tiny_model();
  REQUIRE(loads(bytes));
  const std::span<const std::byte> all(bytes);
  const size_t header = header_bytes(bytes);
  for (size_t size = 0; size < header; ++size) REQUIRE_FALSE(loads(all.first(size)));
  for (size_t size = header; size < bytes.size(); size += 997) {
    REQUIRE_FALSE(loads(all.first(size)));
  }
}

TEST_CASE("gguf bad input: each bit of a small file flipped") {
  Bytes bytes = small_file().finish();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    CAPTURE(bit);
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    CHECK_NOTHROW(static_cast<void>(loads(bytes)));
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

TEST_CASE("gguf bad input: a bit of each byte of a model's header flipped") {
  Bytes bytes = tiny_model();
  const size_t header = header_bytes(bytes);
  int refusals = 0;
  for (size_t at = 0; at < header; ++at) {
    CAPTURE(at);
    bytes[at] ^= std::byte{1} << (at % 8);
    bool loaded = true;
    REQUIRE_NOTHROW(loaded = loads(bytes));
    refusals += loaded ? 0 : 1;
    bytes[at] ^= std::byte{1} << (at % 8);
  }
  CHECK(refusals > 100);  // names, counts and sizes: the checks do look
}

TEST_CASE("gguf bad input: magic, version and byte order") {
  Bytes bytes = small_file().finish();
  refused(ErrorCode::bad_format, "mem: the file is empty", {});
  bytes[0] = std::byte{'X'};
  refused(ErrorCode::bad_format, "mem: not a GGUF file", bytes);
  GgufBuilder b = small_file();
  b.set_version(1);
  refused(ErrorCode::unsupported, "GGUF version: expected 2 or 3, found 1", b.finish());
  b.set_version(4);
  refused(ErrorCode::unsupported, "expected 2 or 3, found 4", b.finish());
  b.set_version(0);
  refused(ErrorCode::unsupported, "expected 2 or 3, found 0", b.finish());
  b.set_version(0x03000000);
  refused(ErrorCode::unsupported, "big-endian", b.finish());
}

TEST_CASE("gguf bad input: absurd counts fail at once") {
  const auto begin = std::chrono::steady_clock::now();
  for (const uint64_t count :
       {uint64_t{1} << 60, UINT64_MAX, uint64_t{1} << 32, uint64_t{1} << 20}) {
    refused("tensor count", [&](GgufBuilder* b) { b->set_tensor_count(count); });
    refused("metadata count", [&](GgufBuilder* b) { b->set_value_count(count); });
  }
  refused("key k", [](GgufBuilder* b) {  // an array of 2^60 strings
    Bytes bytes(12);
    bytes[0] = std::byte{8};
    bytes[11] = std::byte{0x10};
    b->add_raw("k", 9, bytes);
  });
  refused("key k: an array of", [](GgufBuilder* b) {  // 2^62 u64: the product overflows
    Bytes bytes(12);
    bytes[0] = std::byte{10};
    bytes[11] = std::byte{0x40};
    b->add_raw("k", 9, bytes);
  });
  refused("key k", [](GgufBuilder* b) {  // a string of 2^56 bytes
    Bytes bytes(8);
    bytes[7] = std::byte{1};
    b->add_raw("k", 8, bytes);
  });
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(1));
}

TEST_CASE("gguf bad input: keys and value types") {
  refused("key llama.block_count: appears twice",
          [](GgufBuilder* b) { b->add_u32("llama.block_count", 2); });
  refused("key k: unknown value type 13", [](GgufBuilder* b) { b->add_raw("k", 13, Bytes(8)); });
  refused("key k: unknown element type 77", [](GgufBuilder* b) {
    Bytes bytes(12);
    bytes[0] = std::byte{77};
    b->add_raw("k", 9, bytes);
  });
  refused("key k: expected a bool of 0 or 1, found 2",
          [](GgufBuilder* b) { b->add_raw("k", 7, {std::byte{2}}); });
  refused("metadata key: expected 1 to 65535 bytes, found 0",
          [](GgufBuilder* b) { b->add_u8("", 1); });
  refused("metadata key: expected 1 to 65535 bytes, found 70000",
          [](GgufBuilder* b) { b->add_u8(std::string(70000, 'k'), 1); });
  refused("metadata key: not printable ASCII: a?b", [](GgufBuilder* b) { b->add_u8("a\nb", 1); });
  GgufBuilder b = small_file();
  Bytes nested(12);
  nested[0] = std::byte{9};
  b.add_raw("k", 9, nested);
  refused(ErrorCode::unsupported, "key k: arrays of arrays", b.finish());
}

TEST_CASE("gguf bad input: alignment") {
  for (const uint32_t alignment : {0U, 3U, 48U, 1U << 30}) {
    refused("key general.alignment: expected a power of two",
            [&](GgufBuilder* b) { b->add_u32("general.alignment", alignment); });
  }
  refused("key general.alignment: expected an integer",
          [](GgufBuilder* b) { b->add_string("general.alignment", "32"); });
}

TEST_CASE("gguf bad input: tensor names, types and dimensions") {
  const auto with = [](GgufBuilder::RawTensor tensor) {
    return [tensor](GgufBuilder* b) { b->add_raw_tensor(tensor); };
  };
  refused("tensor a: appears twice", with({"a", {1}, 0, {}, Bytes(4)}));
  refused("tensor name: expected 1 to 64 bytes, found 65",
          with({std::string(65, 'n'), {1}, 0, {}, Bytes(4)}));
  refused("tensor name: not printable", with({"x\x01", {1}, 0, {}, Bytes(4)}));
  refused("tensor x: expected 1 to 4 dimensions, found 0", with({"x", {}, 0, {}, Bytes(40)}));
  refused("tensor x: expected 1 to 4 dimensions, found 5",
          with({"x", {1, 1, 1, 1, 1}, 0, {}, Bytes(4)}));
  refused("tensor x: dimension 1 is zero", with({"x", {4, 0}, 0, {}, Bytes(4)}));
  refused("tensor x: the product of its dimensions overflows",
          with({"x", {1ULL << 32, 1ULL << 32}, 0, {}, Bytes(4)}));
  refused("tensor x: the product of its dimensions overflows",
          with({"x", {UINT64_MAX}, 0, {}, Bytes(4)}));
  refused("tensor x: rows of 33 values are no multiple of the 32 values of a Q4_0 block",
          with({"x", {33}, 2, {}, Bytes(40)}));
  GgufBuilder b = small_file();
  b.add_raw_tensor({"x", {256}, 16, {}, Bytes(66)});
  refused(ErrorCode::unsupported, "tensor x: type IQ2_XXS (16) is not supported", b.finish());
  b.find_tensor("x")->type = 1234;
  refused(ErrorCode::unsupported, "tensor x: type 1234 is not supported", b.finish());
}

TEST_CASE("gguf bad input: offsets and sizes") {
  const auto at = [](uint64_t offset) {
    return [offset](GgufBuilder* b) { b->find_tensor("b")->offset = offset; };
  };
  refused("tensor b: offset 33 is no multiple of the alignment 32", at(33));
  refused("tensor b: 12 bytes at offset 4096", at(4096));
  refused("tensor b: 12 bytes at offset", at(UINT64_MAX - 31));
  refused("overlaps that of tensor", at(0));
  refused("tensor b: 4000 bytes at offset",
          [](GgufBuilder* b) { b->find_tensor("b")->dims = {1000}; });
  refused("tensor b:", [](GgufBuilder* b) { b->find_tensor("b")->dims = {1ULL << 59}; });
}

TEST_CASE("gguf bad input: missing keys, tensors and wrong types of a model are refused") {
  for (const char* key :
       {"general.architecture", "llama.block_count", "llama.context_length",
        "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model", "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges"}) {
    GgufBuilder b = test::tiny_llama_builder();
    b.remove(key);
    const Bytes missing = b.finish();
    check_error(ErrorCode::bad_format, std::string("mem: key ") + key + ": missing",
                [&] { test::load_everything(missing); });
    b.add_bool(key, true);
    const Bytes wrong = b.finish();
    check_error(ErrorCode::bad_format, std::string("mem: key ") + key + ": expected",
                [&] { test::load_everything(wrong); });
  }
}

}  // namespace qllm
