#include "kv_layout.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/dot.h"
#include "quant/float_bits.h"
#include "quant/int8.h"

using namespace qllm;       // NOLINT
using namespace qllm::cpu;  // NOLINT

namespace {

constexpr int64_t kHeadDims[] = {16, 24, 40, 64, 80, 96, 128, 256};

float value_at(int64_t t, int64_t d) { return std::sin(static_cast<float>(t * 131 + d * 7)) * 3; }

std::vector<float> token_values(int64_t t, int64_t head_dim) {
  std::vector<float> x;
  for (int64_t d = 0; d < head_dim; ++d) x.push_back(value_at(t, d));
  return x;
}

}  // namespace

TEST_CASE("kv layout: the equations name every byte of a block once") {
  for (const KvFormat format : {KvFormat::bf16, KvFormat::int8}) {
    for (const int64_t head_dim : kHeadDims) {
      std::vector<int> seen(static_cast<size_t>(kv_head_bytes(format, head_dim)));
      const int64_t size = 4 / kv_unit(format);
      const auto mark = [&](int64_t at, int64_t bytes) {
        for (int64_t i = 0; i < bytes; ++i) ++seen.at(static_cast<size_t>(at + i));
      };
      for (int64_t t = 0; t < kKvBlockTokens; ++t) {
        for (int64_t d = 0; d < kv_head_dim_padded(head_dim); ++d) {
          mark(kv_k_offset(format, head_dim, t, d), size);
          mark(kv_v_offset(format, head_dim, t, d), size);
        }
        if (format == KvFormat::bf16) continue;
        mark(kv_scale_offset(head_dim, t, false), 4);
        mark(kv_scale_offset(head_dim, t, true), 4);
      }
      CAPTURE(head_dim);
      CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
    }
  }
}

TEST_CASE("kv layout: what is written lies where the equations say, on every tier") {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512vnni}) {
    if (!isa_available(isa)) {
      MESSAGE("[skipped] tier " << isa_name(isa) << " is not on this machine");
      continue;
    }
    for (const int64_t head_dim : kHeadDims) {
      const VecKernels& vec = vec_kernels(isa);
      std::vector<std::byte> bf16(static_cast<size_t>(kv_head_bytes(KvFormat::bf16, head_dim)));
      std::vector<std::byte> int8(static_cast<size_t>(kv_head_bytes(KvFormat::int8, head_dim)));
      const int64_t count = 41;  // ends inside a unit of either format
      for (int64_t t = 0; t < count; ++t) {
        const std::vector<float> x = token_values(t, head_dim);
        write_kv_key(vec, KvFormat::bf16, head_dim, x.data(), t, bf16.data());
        write_kv_value(vec, KvFormat::bf16, head_dim, x.data(), t, bf16.data());
        write_kv_key(vec, KvFormat::int8, head_dim, x.data(), t, int8.data());
        write_kv_value(vec, KvFormat::int8, head_dim, x.data(), t, int8.data());
      }
      for (int64_t t = 0; t <= count; ++t) {
        std::vector<float> x = token_values(t, head_dim);
        x.resize(static_cast<size_t>(kv_head_dim_padded(head_dim)));
        if (t == count) std::fill(x.begin(), x.end(), 0.0F);  // not written
        std::vector<int8_t> q(x.size());
        const float scale = quantize_row_s8(x.data(), head_dim, q.data());
        for (int64_t d = 0; d < static_cast<int64_t>(x.size()); ++d) {
          uint16_t k16 = 0, v16 = 0;
          std::memcpy(&k16, bf16.data() + kv_k_offset(KvFormat::bf16, head_dim, t, d), 2);
          std::memcpy(&v16, bf16.data() + kv_v_offset(KvFormat::bf16, head_dim, t, d), 2);
          const auto i = static_cast<size_t>(d);
          REQUIRE(v16 == float_to_bfloat(x[i]));
          const auto v8 = int8[static_cast<size_t>(kv_v_offset(KvFormat::int8, head_dim, t, d))];
          REQUIRE(static_cast<int8_t>(v8) == q[i]);
          REQUIRE(k16 == float_to_bfloat(x[i]));
          const auto k8 = int8[static_cast<size_t>(kv_k_offset(KvFormat::int8, head_dim, t, d))];
          REQUIRE(static_cast<int8_t>(k8) == q[i]);
        }
        for (const bool value : {false, true}) {
          float stored = 0;
          std::memcpy(&stored, int8.data() + kv_scale_offset(head_dim, t, value), sizeof stored);
          if (t < count) REQUIRE(stored == scale);
        }
      }
    }
  }
}

TEST_CASE("kv layout: a block never holds a value that is no finite number") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kMax = std::numeric_limits<float>::max();  // rounds to infinity in bf16
  const float nan = std::nanf("");
  std::vector<float> x(24, 1.5F);
  x[0] = nan, x[1] = kInf, x[2] = -kInf, x[3] = kMax, x[4] = -kMax;
  const VecKernels& vec = vec_kernels(Isa::scalar);
  std::vector<std::byte> head(static_cast<size_t>(kv_head_bytes(KvFormat::bf16, 24)));
  const auto stored = [&](int64_t t, int64_t d) {
    uint16_t bits = 0;
    std::memcpy(&bits, head.data() + kv_v_offset(KvFormat::bf16, 24, t, d), 2);
    return bfloat_to_float(bits);
  };
  write_kv_value(vec, KvFormat::bf16, 24, x.data(), 7, head.data());
  const float largest = bfloat_to_float(0x7f7f);
  const float expected[] = {0.0F, largest, -largest, largest, -largest, 1.5F};
  for (int64_t d = 0; d < 6; ++d) CHECK(stored(7, d) == expected[d]);

  // Bytes from outside, all of them no numbers.
  std::fill(head.begin(), head.end(), std::byte{0xff});
  make_kv_values_finite(KvFormat::bf16, 24, head.data());
  for (int64_t t = 0; t < kKvBlockTokens; ++t) {
    for (int64_t d = 0; d < 32; ++d) REQUIRE(stored(t, d) == 0.0F);
  }
  std::vector<std::byte> int8(static_cast<size_t>(kv_head_bytes(KvFormat::int8, 24)));
  const std::vector<std::byte> codes = int8;
  for (int64_t t = 0; t < kKvBlockTokens; ++t) {
    const float scale = t % 3 == 0 ? nan : t % 3 == 1 ? -kInf : 0.25F;
    std::memcpy(int8.data() + kv_scale_offset(24, t, true), &scale, sizeof scale);
  }
  make_kv_values_finite(KvFormat::int8, 24, int8.data());
  for (int64_t t = 0; t < kKvBlockTokens; ++t) {
    float scale = 1;
    std::memcpy(&scale, int8.data() + kv_scale_offset(24, t, true), sizeof scale);
    CHECK(scale == (t % 3 == 2 ? 0.25F : 0.0F));
  }
  CHECK(std::memcmp(int8.data(), codes.data(), static_cast<size_t>(kv_scale_offset(24, 0, true))) ==
        0);
}
