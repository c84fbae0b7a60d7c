#include "model/gguf.h"

#include <doctest/doctest.h>

#include "support/errors.h"
#include "support/gguf_builder.h"
#include "support/temp_dir.h"

namespace qllm {
namespace {

using test::check_error;
using test::GgufBuilder;

GgufBuilder every_value_type() {
  GgufBuilder b;
  b.add_u8("k.u8", 200);
  b.add_i8("k.i8", -3);
  b.add_u16("k.u16", 60000);
  b.add_i16("k.i16", -300);
  b.add_u32("k.u32", 4000000000U);
  b.add_i32("k.i32", -5);
  b.add_u64("k.u64", UINT64_MAX);
  b.add_i64("k.i64", 1LL << 40);
  b.add_f32("k.f32", 1.5F);
  b.add_f64("k.f64", 2.25);
  b.add_bool("k.bool", true);
  b.add_string("k.string", "text");
  b.add_strings("k.strings", {"a", "", "ccc"});
  b.add_i32s("k.i32s", {1, -2});
  b.add_f32s("k.f32s", {0.5F});
  return b;
}

}  // namespace

TEST_CASE("gguf: values of every type come back") {
  const auto bytes = every_value_type().finish();
  const auto file = GgufFile::parse(bytes, "mem");
  CHECK(file->version() == 3);
  CHECK(file->keys().size() == 15);
  CHECK(file->keys().front() == "k.u8");
  CHECK(file->get_u64("k.u8") == 200);
  CHECK(file->get_u64("k.u16") == 60000);
  CHECK(file->get_u64("k.u32") == 4000000000U);
  CHECK(file->get_u64("k.u64") == UINT64_MAX);
  CHECK(file->get_u64("k.i64") == 1ULL << 40);
  CHECK(file->get_f64("k.i8") == -3.0);
  CHECK(file->get_f64("k.i16") == -300.0);
  CHECK(file->get_f64("k.f32") == 1.5);
  CHECK(file->get_f64("k.f64") == 2.25);
  CHECK(file->get_bool("k.bool"));
  CHECK(file->get_string("k.string") == "text");
  CHECK(file->get_strings("k.strings") == std::vector<std::string_view>{"a", "", "ccc"});
  CHECK(*file->find_i64s("k.i32s") == std::vector<int64_t>{1, -2});
  CHECK(*file->find_f32s("k.f32s") == std::vector<float>{0.5F});
}

TEST_CASE("gguf: a missing key is nothing to find_*, an error to get_*") {
  const auto bytes = every_value_type().finish();
  const auto file = GgufFile::parse(bytes, "mem");
  CHECK_FALSE(file->find_u64("no").has_value());
  CHECK_FALSE(file->find_strings("no").has_value());
  check_error(ErrorCode::bad_format, "mem: key no: missing", [&] { file->get_u64("no"); });
  check_error(ErrorCode::bad_format, "mem: key no: missing", [&] { file->get_f64("no"); });
  check_error(ErrorCode::bad_format, "mem: key no: missing", [&] { file->get_bool("no"); });
  check_error(ErrorCode::bad_format, "mem: key no: missing", [&] { file->get_string("no"); });
  check_error(ErrorCode::bad_format, "mem: key no: missing", [&] { file->get_strings("no"); });
}

TEST_CASE("gguf: a wrong type names key, expected and found") {
  const auto bytes = every_value_type().finish();
  const auto file = GgufFile::parse(bytes, "mem");
  const auto refused = [&](const std::string& part, const std::function<void()>& call) {
    check_error(ErrorCode::bad_format, part, call);
  };
  refused("mem: key k.string: expected an integer of at least 0, found string",
          [&] { file->get_u64("k.string"); });
  refused("key k.i32: expected an integer of at least 0, found i32 -5",
          [&] { file->get_u64("k.i32"); });
  refused("key k.f32: expected an integer", [&] { file->get_u64("k.f32"); });
  refused("key k.bool: expected a number, found bool", [&] { file->get_f64("k.bool"); });
  refused("key k.u8: expected a bool, found u8 200", [&] { file->get_bool("k.u8"); });
  refused("key k.u64: expected a string, found u64", [&] { file->get_string("k.u64"); });
  refused("key k.i32s: expected an array of strings, found an array of 2 i32",
          [&] { file->get_strings("k.i32s"); });
  refused("key k.i32s: expected an array of f32", [&] { file->find_f32s("k.i32s"); });
  refused("key k.strings: expected an array of integers", [&] { file->find_i64s("k.strings"); });
  refused("key k.u8: expected an array of integers", [&] { file->find_i64s("k.u8"); });
}

TEST_CASE("gguf: tensors have row-major shapes, sizes and their own bytes") {
  GgufBuilder b;
  b.add_tensor("v", {3}, GgmlType::f32, {1, 2, 3});
  b.add_tensor("m", {2, 32}, GgmlType::q8_0, std::vector<float>(64, 1.0F));
  b.add_tensor("t", {2, 3, 5}, GgmlType::f16, std::vector<float>(30, 0.5F));
  const auto bytes = b.finish();
  const auto file = GgufFile::parse(bytes, "mem");
  REQUIRE(file->tensors().size() == 3);
  CHECK(file->tensor("v").shape == std::vector<int64_t>{3});
  CHECK(file->tensor("m").shape == std::vector<int64_t>{2, 32});
  CHECK(file->tensor("m").row_bytes() == 34);
  CHECK(file->tensor("m").data.size() == 68);
  CHECK(file->tensor("t").shape == std::vector<int64_t>{2, 3, 5});
  CHECK(file->tensor("t").rows() == 6);
  CHECK(file->tensor("t").data.size() == 60);
  CHECK(file->tensor("t").data.data() + 60 == bytes.data() + bytes.size());
  CHECK(file->find_tensor("no") == nullptr);
  check_error(ErrorCode::bad_format, "mem: tensor no: missing", [&] { file->tensor("no"); });
}

TEST_CASE("gguf: version 2 and other alignments are read") {
  for (const uint32_t alignment : {1U, 8U, 32U, 4096U}) {
    GgufBuilder b;
    b.set_version(2);
    b.set_alignment(alignment);
    b.add_tensor("a", {3}, GgmlType::f32, {1, 2, 3});
    b.add_tensor("b", {1}, GgmlType::f32, {4});
    const auto bytes = b.finish();
    const auto file = GgufFile::parse(bytes, "mem");
    CHECK(file->version() == 2);
    CHECK(file->alignment() == alignment);
    float value = 0;
    std::memcpy(&value, file->tensor("b").data.data(), sizeof value);
    CHECK(value == 4.0F);
  }
}

TEST_CASE("gguf: open maps a file and names it in messages") {
  const test::TempDir dir;
  test::write_file((dir.path() / "m.gguf").string(), every_value_type().finish());
  const auto file = GgufFile::open((dir.path() / "m.gguf").string());
  CHECK(file->get_string("k.string") == "text");
  check_error(ErrorCode::bad_format, (dir.path() / "m.gguf").string() + ": key x: missing",
              [&] { file->get_u64("x"); });
  check_error(ErrorCode::not_found, "no.gguf",
              [&] { GgufFile::open((dir.path() / "no.gguf").string()); });
  check_error(ErrorCode::io, "is a directory", [&] { GgufFile::open(dir.path().string()); });
}

TEST_CASE("gguf: split files are refused by name and by metadata") {
  const test::TempDir dir;
  GgufBuilder b;
  b.add_u16("split.count", 1);
  test::write_file((dir.path() / "m-00001-of-00003.gguf").string(), b.finish());
  check_error(ErrorCode::unsupported, "split model",
              [&] { GgufFile::open((dir.path() / "m-00001-of-00003.gguf").string()); });
  test::write_file((dir.path() / "m-00001-of-00001.gguf").string(), b.finish());
  CHECK(GgufFile::open((dir.path() / "m-00001-of-00001.gguf").string())->get_u64("split.count") ==
        1);
  b.remove("split.count");
  b.add_u16("split.count", 2);
  const auto bytes = b.finish();
  check_error(ErrorCode::unsupported, "one of 2 parts of a split model",
              [&] { GgufFile::parse(bytes, "mem"); });
}

TEST_CASE("printable: hostile text becomes a short line") {
  CHECK(printable("ok") == "ok");
  CHECK(printable(std::string_view("a\nb\xC3\x00", 5)) == "a?b??");
  CHECK(printable(std::string(100, 'x')) == std::string(64, 'x') + "...");
}

}  // namespace qllm
