#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "backend/backend.h"
#include "support/errors.h"

namespace qllm {
namespace {

/// Tensor "a": row r is filled with 100 + r; "b": with 200 + r. Rows of 3 values.
class FakeSource final : public TensorSource {
 public:
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override {
    const float base = tensor == "a" ? 100.0F : 200.0F;
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t i = 0; i < 3; ++i) out[r * 3 + i] = base + static_cast<float>(row + r);
    }
  }
};

Weight interleaved() {  // rows 0-1 of a, 0-1 of b, a gap of 1, row 5 of a
  return {"w", WeightRole::linear, 6, 3, {{"a", 0, 0, 2}, {"b", 0, 2, 2}, {"a", 5, 5, 1}}};
}

}  // namespace

TEST_CASE("read_weight_rows: rows come from their spans, those of none are zero") {
  std::vector<float> out(18, -1.0F);
  read_weight_rows(FakeSource(), interleaved(), 0, 6, out.data());
  const std::vector<float> expected = {100, 101, 200, 201, 0, 105};
  for (size_t row = 0; row < 6; ++row) {
    for (size_t i = 0; i < 3; ++i) CHECK(out[row * 3 + i] == expected[row]);
  }
}

TEST_CASE("read_weight_rows: any sub-range equals that part of the whole") {
  std::vector<float> whole(18);
  read_weight_rows(FakeSource(), interleaved(), 0, 6, whole.data());
  for (int64_t row = 0; row <= 6; ++row) {
    for (int64_t count = 0; row + count <= 6; ++count) {
      std::vector<float> part(static_cast<size_t>(count * 3) + 1, -7.0F);
      read_weight_rows(FakeSource(), interleaved(), row, count, part.data());
      CHECK(part.back() == -7.0F);
      CHECK(std::equal(part.begin(), part.end() - 1, whole.begin() + row * 3));
    }
  }
}

TEST_CASE("read_weight_rows: a range outside of the weight is refused") {
  std::vector<float> out(30);
  for (const auto& rows : {std::pair{-1, 1}, std::pair{0, 7}, std::pair{7, 0}}) {
    test::check_error(ErrorCode::invalid_argument, "weight w", [&] {
      read_weight_rows(FakeSource(), interleaved(), rows.first, rows.second, out.data());
    });
  }
}

TEST_CASE("read_weight_vector: parts lie end to end, gaps are zero") {
  const Weight weight{"bias", WeightRole::vector, 1, 7, {{"a", 0, 0, 3}, {"b", 0, 4, 3}}};
  std::vector<float> out(8, -1.0F);
  read_weight_vector(FakeSource(), weight, out.data());
  CHECK(out == std::vector<float>{100, 100, 100, 0, 200, 200, 200, -1});
}

TEST_CASE("read_weight_vector: a part that ends outside is refused before it is read") {
  const Weight weight{"bias", WeightRole::vector, 1, 4, {{"a", 0, 2, 3}}};
  std::vector<float> out(4);
  test::check_error(ErrorCode::internal, "weight bias",
                    [&] { read_weight_vector(FakeSource(), weight, out.data()); });
}

}  // namespace qllm
