#include "quant/int8.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quant/packing.h"

namespace qllm {

TEST_CASE("quantize_row_s8: scale is the largest magnitude over 127, values round to even") {
  // inv = 127 / 127 = 1, so that the values are their own quotients.
  const std::vector<float> x = {127.0F, -127.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, 0.49F, 126.6F};
  std::vector<int8_t> q(x.size());
  CHECK(quantize_row_s8(x.data(), 9, q.data()) == 1.0F);
  CHECK(q == std::vector<int8_t>{127, -127, 0, 2, 2, 0, -2, 0, 127});
}

TEST_CASE("quantize_row_s8: the error of each value is at most half a step") {
  std::vector<float> x(257);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i * i)) * 3.7F;
  std::vector<int8_t> q(x.size());
  const float scale = quantize_row_s8(x.data(), 257, q.data());
  for (size_t i = 0; i < x.size(); ++i) {
    // Half a step, and 1e-5 of the row's range for the float products.
    CHECK(std::fabs(scale * static_cast<float>(q[i]) - x[i]) <= 0.5F * scale + 3.7e-5F);
  }
}

TEST_CASE("quantize_row_s8: zeros, NaN and infinities") {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<int8_t> q(4, 5);
  const std::vector<float> zeros(4, 0.0F);
  CHECK(quantize_row_s8(zeros.data(), 4, q.data()) == 1.0F);
  CHECK(q == std::vector<int8_t>(4, 0));
  const std::vector<float> wild = {std::nanf(""), inf, -inf, 254.0F};
  CHECK(quantize_row_s8(wild.data(), 4, q.data()) == 2.0F);
  CHECK(q == std::vector<int8_t>{0, 127, -127, 127});
}

TEST_CASE("quantize_row_u8: is s8 plus 128, padding included") {
  std::vector<float> x(70);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::cos(static_cast<float>(i)) - 0.3F;
  std::vector<int8_t> s(70);
  std::vector<uint8_t> u(129, 9);
  CHECK(quantize_row_s8(x.data(), 70, s.data()) == quantize_row_u8(x.data(), 70, 128, u.data()));
  for (size_t i = 0; i < 70; ++i) CHECK(u[i] == s[i] + 128);
  for (size_t i = 70; i < 128; ++i) CHECK(u[i] == 128);
  CHECK(u[128] == 9);
}

TEST_CASE("subtract_codes: a second term leaves at most half of its own step") {
  std::vector<float> x(300);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i * i)) * 3.7F;
  std::vector<float> rest = x;
  std::vector<uint8_t> u(320);
  std::vector<int8_t> first(300);
  std::vector<int8_t> second(300);
  const float step = quantize_row_u8(x.data(), 300, 320, u.data());
  subtract_codes(u.data(), kActivationZero, step, 300, rest.data());
  std::vector<float> same = x;
  quantize_row_s8(x.data(), 300, first.data());
  subtract_codes(first.data(), 0, step, 300, same.data());
  CHECK(same == rest);  // of s8 and of u8 alike
  const float second_step = quantize_row_s8(rest.data(), 300, second.data());
  CHECK(second_step <= step / 254 * 1.01F);  // what half a step of the first is, over 127
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = double{step} * first[i] + double{second_step} * second[i];
    // Beside it the roundings of s0 q0 and of the difference: 2^-24 of 3.7 each.
    CHECK(std::fabs(kept - x[i]) <= 0.5 * second_step + 2 * 3.7 / 16777216.0);
  }
}

TEST_CASE("pack_row_s8: puts each value at its offset and returns the sum") {
  std::vector<int8_t> q(70);
  int32_t sum = 0;
  for (size_t i = 0; i < q.size(); ++i) sum += q[i] = static_cast<int8_t>(3 * i - 100);
  std::vector<int8_t> packed(static_cast<size_t>(packed_bytes(65, 70)), 0);
  CHECK(pack_row_s8(q.data(), 70, 64, 128, packed.data()) == sum);
  int64_t others = 0;
  for (const int8_t value : packed) others += value;
  for (int64_t k = 0; k < 70; ++k) {
    const int8_t value = packed[static_cast<size_t>(packed_offset(64, k, 128))];
    CHECK(value == q[static_cast<size_t>(k)]);
    others -= value;
  }
  CHECK(others == 0);
}

}  // namespace qllm
