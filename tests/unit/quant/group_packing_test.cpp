#include "quant/group_packing.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quant/float_bits.h"
#include "quant/group_quant.h"
#include "quant/packing.h"

namespace qllm {
namespace {

constexpr GroupFormat kFormats[] = {
    {4, 32, GroupScales::f16},     {4, 64, GroupScales::f16},      {4, 128, GroupScales::f16},
    {4, 32, GroupScales::f16_min}, {4, 64, GroupScales::f16_min},  {4, 128, GroupScales::f16_min},
    {8, 32, GroupScales::f16},     {8, 64, GroupScales::f16},      {8, 128, GroupScales::f16},
    {8, 32, GroupScales::f16_min}, {8, 128, GroupScales::f16_min}, {4, 32, GroupScales::k_quant},
};

/// A row with random codes and scales of the form that `format` asks for.
GroupRow random_row(const GroupFormat& format, int64_t k, std::mt19937& random) {
  GroupRow row;
  zero_group_row(format, k, &row);
  for (uint8_t& q : row.q) q = static_cast<uint8_t>(random() % (1U << format.bits));
  for (uint16_t& s : row.scale) s = static_cast<uint16_t>(0x2000 + random() % 0x1000);
  for (uint16_t& m : row.min) m = static_cast<uint16_t>(0xA000 + random() % 0x1000);
  for (uint8_t& s : row.sub_scale) s = static_cast<uint8_t>(random() % 64);
  for (uint8_t& m : row.sub_min) m = static_cast<uint8_t>(random() % 64);
  return row;
}

}  // namespace

TEST_CASE("group packing: 64 rows go into a block column and come back") {
  std::mt19937 random(1);
  for (const GroupFormat& format : kFormats) {
    const int64_t k = format.padded_k(300);
    std::vector<std::byte> column(static_cast<size_t>(format.column_bytes(k)));
    std::vector<GroupRow> rows;
    for (int64_t c = 0; c < 64; ++c) {
      rows.push_back(random_row(format, k, random));
      pack_group_row(format, rows.back(), k, c, column.data());
    }
    int64_t wrong = 0;
    for (int64_t c = 0; c < 64; ++c) {
      const GroupRow& row = rows[static_cast<size_t>(c)];
      for (int64_t i = 0; i < k; ++i) {
        const GroupWeight w = read_group_weight(format, column.data(), c, i);
        const GroupScale s = group_scale(format, row, i / format.group);
        wrong += w.q != row.q[static_cast<size_t>(i)] || w.scale != s.scale || w.min != s.min;
      }
    }
    INFO("bits ", format.bits, " group ", format.group, " scales ",
         static_cast<int>(format.scales));
    CHECK(wrong == 0);
  }
}

TEST_CASE("group packing: every byte of a column belongs to one output") {
  // Two rows whose stored bits are all inverted: packing the second over the first changes exactly
  // the bytes of that output, a 64th of the column.
  for (const GroupFormat& format : kFormats) {
    const int64_t k = format.padded_k(256);
    const auto bytes = static_cast<size_t>(format.column_bytes(k));
    GroupRow row;
    zero_group_row(format, k, &row);
    for (uint8_t& q : row.q) q = static_cast<uint8_t>((1U << format.bits) - 1);
    for (auto* halves : {&row.scale, &row.min}) halves->assign(halves->size(), 0xFFFF);
    for (auto* subs : {&row.sub_scale, &row.sub_min}) subs->assign(subs->size(), 0xFF);
    std::vector<int> owners(bytes, 0);
    for (int64_t c = 0; c < 64; ++c) {
      std::vector<std::byte> column(bytes, std::byte{0});
      pack_group_row(format, row, k, c, column.data());
      size_t written = 0;
      for (size_t i = 0; i < bytes; ++i) {
        owners[i] += column[i] != std::byte{0};
        written += column[i] == std::byte{0xFF};
      }
      CHECK(written == bytes / 64);
    }
    CHECK(owners == std::vector<int>(bytes, 1));
  }
}

TEST_CASE("group packing: 8-bit codes lie as packed int8 weights do") {
  for (int64_t i = 0; i < 64; ++i) {
    for (int64_t c = 0; c < 64; ++c) CHECK(group_code_offset(8, i, c) == packed_offset(c, i, 64));
  }
}

TEST_CASE("group packing: a 4-bit line masked holds inputs 0 to 3, shifted inputs 4 to 7") {
  for (int64_t i = 0; i < 4; ++i) {
    CHECK(group_code_offset(4, 8 + i, 5) == 256 + 20 + i);
    CHECK(group_code_offset(4, 12 + i, 5) == 256 + 20 + i);
    CHECK(group_code_shift(4, 8 + i) == 0);
    CHECK(group_code_shift(4, 12 + i) == 4);
  }
}

}  // namespace qllm
