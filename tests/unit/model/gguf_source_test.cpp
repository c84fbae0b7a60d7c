#include "model/gguf_source.h"

#include <doctest/doctest.h>

#include <cmath>
#include <thread>
#include <vector>

#include "quant/group_quant.h"
#include "support/errors.h"
#include "support/gguf_builder.h"

namespace qllm {
namespace {

std::vector<float> ramp(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 61) - 30.0F;
  return values;
}

std::vector<std::byte> some_file() {
  test::GgufBuilder b;
  b.add_tensor("v", {5}, GgmlType::f32, ramp(5));
  b.add_tensor("m32", {7, 64}, GgmlType::f32, ramp(448));
  b.add_tensor("m16", {7, 64}, GgmlType::f16, ramp(448));
  b.add_tensor("m8", {7, 64}, GgmlType::q8_0, ramp(448));
  b.add_tensor("t", {2, 2, 4}, GgmlType::f32, ramp(16));
  return b.finish();
}

}  // namespace

TEST_CASE("gguf source: rows of a matrix and of a vector") {
  const auto bytes = some_file();
  const GgufTensorSource source(GgufFile::parse(bytes, "mem"));
  std::vector<float> out(192);
  const std::vector<float> expected = ramp(448);
  for (const char* name : {"m32", "m16"}) {  // both hold these integers exactly
    source.read_rows(name, 3, 3, out.data());
    for (size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == expected[3 * 64 + i]);
  }
  source.read_rows("v", 0, 1, out.data());
  CHECK(out[4] == expected[4]);
}

TEST_CASE("gguf source: quantized rows one by one equal all at once") {
  const auto bytes = some_file();
  const GgufTensorSource source(GgufFile::parse(bytes, "mem"));
  std::vector<float> all(448);
  std::vector<float> row(64);
  source.read_rows("m8", 0, 7, all.data());
  for (int64_t r = 0; r < 7; ++r) {
    source.read_rows("m8", r, 1, row.data());
    CHECK(std::equal(row.begin(), row.end(), all.begin() + r * 64));
  }
  // Q8_0: half a step of the block's largest magnitude over 127, and half-precision of the scale.
  const std::vector<float> expected = ramp(448);
  for (size_t i = 0; i < all.size(); ++i)
    CHECK(std::abs(all[i] - expected[i]) <= 30.0F / 254 + 0.02F);
}

TEST_CASE("gguf source: what is not there is refused") {
  const auto bytes = some_file();
  const GgufTensorSource source(GgufFile::parse(bytes, "mem"));
  std::vector<float> out(1024);
  const auto refused = [&](ErrorCode code, const std::string& part, const std::string& name,
                           int64_t row, int64_t count) {
    test::check_error(code, part, [&] { source.read_rows(name, row, count, out.data()); });
  };
  refused(ErrorCode::not_found, "mem: tensor no: missing", "no", 0, 1);
  refused(ErrorCode::unsupported, "tensor t: expected 1 or 2 dimensions, found 3", "t", 0, 1);
  refused(ErrorCode::invalid_argument, "tensor m32: 1 rows from row 7 on asked of 7", "m32", 7, 1);
  refused(ErrorCode::invalid_argument, "tensor m32", "m32", -1, 1);
  refused(ErrorCode::invalid_argument, "tensor m32", "m32", 3, 5);
  refused(ErrorCode::invalid_argument, "tensor m32", "m32", 0, -1);
  refused(ErrorCode::invalid_argument, "tensor m32", "m32", INT64_MAX, 1);
  refused(ErrorCode::invalid_argument, "tensor v", "v", 1, 1);
}

TEST_CASE("gguf source: two threads at once read the same") {
  const auto bytes = some_file();
  const GgufTensorSource source(GgufFile::parse(bytes, "mem"));
  std::vector<float> a(448);
  std::vector<float> b(448);
  std::thread other([&] { source.read_rows("m8", 0, 7, b.data()); });
  source.read_rows("m8", 0, 7, a.data());
  other.join();
  CHECK(a == b);
}

TEST_CASE("gguf source: the grid of a tensor, and its rows on it") {
  const auto bytes = some_file();
  const GgufTensorSource source(GgufFile::parse(bytes, "mem"));
  CHECK(!source.grid("m32"));
  CHECK(!source.grid("m16"));
  const std::optional<GroupFormat> grid = source.grid("m8");
  REQUIRE(grid == GroupFormat{8, 32, GroupScales::f16});
  std::vector<float> expected(64);
  std::vector<float> found(64);
  GroupRow row;
  for (int64_t r = 0; r < 7; ++r) {
    source.read_rows("m8", r, 1, expected.data());
    source.read_grid_row("m8", r, &row);
    dequantize_group_row(*grid, row, found.data());
    CHECK(found == expected);
  }
}

TEST_CASE("gguf source: grid rows that do not exist are refused") {
  const auto bytes = some_file();
  const GgufTensorSource source(GgufFile::parse(bytes, "mem"));
  GroupRow row;
  const auto read = [&](const char* name, int64_t r) { source.read_grid_row(name, r, &row); };
  test::check_error(ErrorCode::not_found, "tensor none", [&] { source.grid("none"); });
  test::check_error(ErrorCode::not_found, "tensor none", [&] { read("none", 0); });
  test::check_error(ErrorCode::unsupported, "2 dimensions, found 3", [&] { source.grid("t"); });
  test::check_error(ErrorCode::invalid_argument, "asked of 7", [&] { read("m8", 7); });
  test::check_error(ErrorCode::invalid_argument, "asked of 7", [&] { read("m8", -1); });
  test::check_error(ErrorCode::unsupported, "m32", [&] { read("m32", 0); });
}

}  // namespace qllm
