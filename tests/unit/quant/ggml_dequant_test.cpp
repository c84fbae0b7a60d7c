#include "quant/ggml_dequant.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "quant/float_bits.h"
#include "quant/ggml_grid.h"
#include "quant/group_quant.h"

namespace qllm {
namespace {

struct Golden {
  uint32_t type = 0, rows = 0, values = 0, row_bytes = 0;
  std::vector<std::byte> data;  // [rows, row_bytes]
  std::vector<float> expected;  // [rows, values]
};

template <typename T>
void take(const std::string& bytes, size_t* at, T* out, size_t count) {
  REQUIRE(*at + count * sizeof(T) <= bytes.size());
  std::memcpy(out, bytes.data() + *at, count * sizeof(T));
  *at += count * sizeof(T);
}

// Written by scripts/make_dequant_goldens.py with an independent implementation.
std::vector<Golden> read_goldens() {
  std::ifstream in(QLLM_TEST_DATA "/dequant_goldens.bin", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  std::vector<Golden> goldens;
  for (size_t at = 0; at < bytes.size();) {
    Golden g;
    take(bytes, &at, &g.type, 1);
    take(bytes, &at, &g.rows, 1);
    take(bytes, &at, &g.values, 1);
    take(bytes, &at, &g.row_bytes, 1);
    g.data.resize(size_t{g.rows} * g.row_bytes);
    g.expected.resize(size_t{g.rows} * g.values);
    take(bytes, &at, g.data.data(), g.data.size());
    take(bytes, &at, g.expected.data(), g.expected.size());
    goldens.push_back(std::move(g));
  }
  return goldens;
}

}  // namespace

TEST_CASE("dequantize_row: equals the goldens bit for bit, for every type") {
  const std::vector<Golden> goldens = read_goldens();
  std::set<uint32_t> seen;
  for (const Golden& g : goldens) {
    const GgmlTypeInfo* info = find_ggml_type(g.type);
    REQUIRE(info != nullptr);
    CAPTURE(info->name);
    seen.insert(g.type);
    REQUIRE(g.values % info->block_elements == 0);
    REQUIRE(g.values / info->block_elements * info->block_bytes == g.row_bytes);
    for (uint32_t row = 0; row < g.rows; ++row) {
      std::vector<float> out(g.values, -1.0F);
      dequantize_row(info->type, g.data.data() + row * g.row_bytes, g.values, out.data());
      for (uint32_t i = 0; i < g.values; ++i) {
        CAPTURE(row);
        CAPTURE(i);
        const float expected = g.expected[row * g.values + i];
        REQUIRE(std::bit_cast<uint32_t>(out[i]) == std::bit_cast<uint32_t>(expected));
      }
    }
  }
  CHECK(seen.size() == 13);
}

TEST_CASE("grid rows: dequantized, equal the goldens bit for bit, unaligned too") {
  int seen = 0;
  for (const Golden& g : read_goldens()) {
    const GgmlTypeInfo& info = *find_ggml_type(g.type);
    const std::optional<GroupFormat> format = ggml_grid(info.type);
    if (!format) continue;
    ++seen;
    CAPTURE(info.name);
    std::vector<std::byte> shifted(g.row_bytes + 1);
    for (uint32_t row = 0; row < g.rows; ++row) {
      std::memcpy(shifted.data() + 1, g.data.data() + row * g.row_bytes, g.row_bytes);
      GroupRow on_grid;
      read_ggml_grid_row(info.type, shifted.data() + 1, g.values, &on_grid);
      REQUIRE(on_grid.q.size() == g.values);
      std::vector<float> out(g.values, -1.0F);
      dequantize_group_row(*format, on_grid, out.data());
      for (uint32_t i = 0; i < g.values; ++i) {
        CAPTURE(i);
        const float expected = g.expected[row * g.values + i];
        REQUIRE(std::bit_cast<uint32_t>(out[i]) == std::bit_cast<uint32_t>(expected));
      }
    }
  }
  CHECK(seen == 4);
}

TEST_CASE("dequantize_row: unaligned source") {
  for (const Golden& g : read_goldens()) {
    std::vector<std::byte> shifted(g.row_bytes + 1);
    std::memcpy(shifted.data() + 1, g.data.data(), g.row_bytes);
    std::vector<float> out(g.values);
    dequantize_row(static_cast<GgmlType>(g.type), shifted.data() + 1, g.values, out.data());
    CHECK(std::memcmp(out.data(), g.expected.data(), out.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("half_to_float: every finite half is its sign, exponent and fraction") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint32_t exponent = (bits >> 10) & 31U;
    const double fraction = bits & 1023U;
    if (exponent == 31) continue;
    double expected = exponent == 0
                          ? std::ldexp(fraction, -24)
                          : std::ldexp(1024.0 + fraction, static_cast<int>(exponent) - 25);
    if ((bits & 0x8000U) != 0) expected = -expected;
    const float found = half_to_float(static_cast<uint16_t>(bits));
    CAPTURE(bits);
    REQUIRE(std::bit_cast<uint32_t>(found) ==
            std::bit_cast<uint32_t>(static_cast<float>(expected)));
  }
}

TEST_CASE("half_to_float: infinities and NaN") {
  CHECK(half_to_float(0x7C00) == std::numeric_limits<float>::infinity());
  CHECK(half_to_float(0xFC00) == -std::numeric_limits<float>::infinity());
  CHECK(std::bit_cast<uint32_t>(half_to_float(0x7E01)) == 0x7FC02000U);
}

TEST_CASE("float_to_half: gives back every half, and rounds to even between two") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7C00U) == 0x7C00U && (bits & 0x3FFU) != 0) continue;
    const auto half = static_cast<uint16_t>(bits);
    REQUIRE(float_to_half(half_to_float(half)) == half);
  }
  CHECK(float_to_half(1.0F + 0x1p-11F) == 0x3C00);      // midway: even
  CHECK(float_to_half(1.0F + 3 * 0x1p-11F) == 0x3C02);  // midway: even is above
  CHECK(float_to_half(0x1p-25F) == 0x0000);             // midway below the least subnormal
  CHECK(float_to_half(65519.0F) == 0x7BFF);
  CHECK(float_to_half(65520.0F) == 0x7C00);
  CHECK(std::isnan(half_to_float(float_to_half(std::nanf("")))));
}

TEST_CASE("float_to_bfloat: rounds to nearest even") {
  CHECK(float_to_bfloat(1.0F) == 0x3F80);
  CHECK(float_to_bfloat(std::bit_cast<float>(0x3F808000U)) == 0x3F80);
  CHECK(float_to_bfloat(std::bit_cast<float>(0x3F818000U)) == 0x3F82);
  CHECK(std::isnan(bfloat_to_float(float_to_bfloat(std::nanf("")))));
}

}  // namespace qllm
