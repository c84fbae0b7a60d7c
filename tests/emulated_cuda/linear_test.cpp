// Products with int8 weights and with weights in groups, emulated, against plain loops over the
// same codes: int8 sums are exact, so results are equal to the last bit of the float formula; in
// groups floats are added in another order, 2^-23 a group.
#include "kernels/linear.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cuda_host/device_memory.h"
#include "cuda_host/runtime.h"
#include "quant/group_packing.h"
#include "quant/group_quant.h"
#include "quant/int8.h"
#include "quant/packing.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

/// Codes of all values, extremes among them.
std::vector<int8_t> codes(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int8_t> out(static_cast<size_t>(count));
  for (auto& q : out) q = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
  return out;
}

std::vector<float> floats(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(0.5F, 1.5F);
  std::vector<float> out(static_cast<size_t>(count));
  for (auto& v : out) v = uniform(random);
  return out;
}

int32_t dot(const int8_t* a, const int8_t* b, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

enum class Kernel { stream, tiles };

/// Rows [128, 192) have a second term; the last outputs of the last block are padding.
struct Int8Case {
  int64_t n = 256, width = 250, k, m;
  std::vector<int8_t> w, w2, x;
  std::vector<float> scale, scale2, x_scale, bias, residual;

  Int8Case(int64_t k_, int64_t m_) : k(k_), m(m_) {
    w = codes(n * k, 1);
    w2 = codes(64 * k, 2);
    x = codes(m * k, 3);
    scale = floats(n, 4);
    scale2 = floats(64, 5);
    x_scale = floats(m, 6);
    bias = floats(n, 7);
    residual = floats(m * n, 8);
  }

  float expected(int64_t t, int64_t row) const {
    float value = static_cast<float>(
                      dot(&w[static_cast<size_t>(row * k)], &x[static_cast<size_t>(t * k)], k)) *
                  (x_scale[static_cast<size_t>(t)] * scale[static_cast<size_t>(row)]);
    if (row >= 128 && row < 192) {
      value += static_cast<float>(dot(&w2[static_cast<size_t>((row - 128) * k)],
                                      &x[static_cast<size_t>(t * k)], k)) *
               (x_scale[static_cast<size_t>(t)] * scale2[static_cast<size_t>(row - 128)]);
    }
    value += bias[static_cast<size_t>(row)];
    return value + residual[static_cast<size_t>(t * n + row)];
  }

  void run(Kernel kernel, int multiprocessors) const {
    DeviceMemory<int8_t> dw(w), dw2(w2), dx(x);
    DeviceMemory<float> ds(scale), ds2(scale2), dxs(x_scale), db(bias), dr(residual), y(m * n);
    const Int8Linear linear{{dw.data(), ds.data(), 0, n, k}, {dw2.data(), ds2.data(), 128, 64, k}};
    const QuantRows rows{dx.data(), dxs.data(), nullptr, k, 0};
    const LinearTarget target{{y.data(), n, width}, db.data(), dr.data()};
    for (int64_t i = 0; i < m * n; ++i) y.data()[i] = -7.0F;
    if (kernel == Kernel::stream) {
      int8_stream(linear, rows, m, target, multiprocessors, nullptr);
    } else {
      int8_tiles(linear, rows, m, target, nullptr);
    }
    REQUIRE(std::string(cuda_host::last_failure()).empty());
    for (int64_t t = 0; t < m; ++t) {
      for (int64_t row = 0; row < n; ++row) {
        const float got = y.data()[t * n + row];
        REQUIRE(got == (row < width ? expected(t, row) : -7.0F));
      }
    }
  }
};

struct Rounded {
  std::vector<GroupRow> rows;
  std::vector<std::byte> columns;
};

Rounded make_weights(const GroupFormat& f, int64_t n, int64_t k) {
  Rounded out;
  const int64_t k_padded = f.padded_k(k);
  out.columns.resize(static_cast<size_t>(n / 64 * f.column_bytes(k_padded)));
  std::mt19937_64 random(21);
  std::normal_distribution<float> normal(0.1F, 1.0F);
  for (int64_t r = 0; r < n; ++r) {
    GroupRow row;
    if (f.scales == GroupScales::k_quant) {
      zero_group_row(f, k_padded, &row);
      for (auto& q : row.q) q = static_cast<uint8_t>(random() % 16);
      for (auto& s : row.sub_scale) s = static_cast<uint8_t>(random() % 64);
      for (auto& s : row.sub_min) s = static_cast<uint8_t>(random() % 64);
      for (auto& s : row.scale) s = 0x1C00 + static_cast<uint16_t>(random() % 512);  // some 2^-8
      for (auto& s : row.min) s = 0x1C00 + static_cast<uint16_t>(random() % 512);
    } else {
      std::vector<float> x(static_cast<size_t>(k));
      for (auto& v : x) v = normal(random);
      quantize_group_row(f, x.data(), k, &row);
    }
    pad_group_row(f, k_padded, &row);
    pack_group_row(f, row, k_padded, r % 64,
                   out.columns.data() + r / 64 * f.column_bytes(k_padded));
    out.rows.push_back(std::move(row));
  }
  return out;
}

void check_groups(const GroupFormat& f, int64_t k, int64_t m, Kernel kernel) {
  const int64_t n = 128, width = 126, k_padded = f.padded_k(k);
  const int64_t ld = k_padded + 128;  // another run of the linear may pad to more
  const Rounded w = make_weights(f, n, k);
  std::vector<int8_t> q(static_cast<size_t>(m * ld));
  std::vector<float> scale(static_cast<size_t>(m * ld / f.group));
  std::vector<int32_t> sum(scale.size());
  for (int64_t t = 0; t < m; ++t) {
    const std::vector<float> x = floats(k, 30 + static_cast<uint64_t>(t));
    quantize_groups_s8(x.data(), k, ld, f.group, q.data() + t * ld, scale.data() + t * ld / f.group,
                       sum.data() + t * ld / f.group);
  }
  DeviceMemory<std::byte> columns(w.columns);
  DeviceMemory<int8_t> dq(q);
  DeviceMemory<float> ds(scale), y(m * n);
  DeviceMemory<int32_t> dsum(sum);
  const GroupRun run{columns.data(), f, 0, n, k_padded, f.column_bytes(k_padded)};
  const QuantRows rows{dq.data(), ds.data(), dsum.data(), ld, f.group};
  const LinearTarget target{{y.data(), n, width}, nullptr, nullptr};
  if (kernel == Kernel::stream) {
    group_stream(run, rows, m, target, nullptr);
  } else {
    group_tiles(run, rows, m, target, nullptr);
  }
  REQUIRE(std::string(cuda_host::last_failure()).empty());
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t r = 0; r < width; ++r) {
      double want = 0, size = 0;
      for (int64_t g = 0; g < k_padded / f.group; ++g) {
        const GroupScale s = group_scale(f, w.rows[static_cast<size_t>(r)], g);
        int32_t d = 0;
        for (int64_t i = g * f.group; i < (g + 1) * f.group; ++i) {
          d += (w.rows[static_cast<size_t>(r)].q[static_cast<size_t>(i)] - f.zero()) *
               q[static_cast<size_t>(t * ld + i)];
        }
        const auto at = static_cast<size_t>(t * ld / f.group + g);
        const double a = double{scale[at]} * s.scale * d, b = double{scale[at]} * s.min * sum[at];
        want += a + b;
        size += std::abs(a) + std::abs(b);
      }
      const double bound = size * static_cast<double>(k_padded / f.group + 4) * 0x1p-23;
      REQUIRE(std::abs(y.data()[t * n + r] - want) <= bound);
    }
  }
}

}  // namespace

TEST_CASE("cuda int8: stream and tiles equal exact sums, second terms, bias and residual") {
  for (const int64_t k : {int64_t{64}, int64_t{576}, int64_t{1088}}) {
    for (const int64_t m : {1, 2, 3, 4, 5, 8}) {
      for (const int sms : {1, 132}) Int8Case(k, m).run(Kernel::stream, sms);
    }
    for (const int64_t m : {1, 7, 8, 9, 16, 31, 33, 64, 70}) Int8Case(k, m).run(Kernel::tiles, 1);
  }
}

TEST_CASE("cuda groups: stream and tiles agree with double sums, all formats") {
  using S = GroupScales;
  for (const GroupFormat& f :
       {GroupFormat{4, 32, S::f16}, GroupFormat{4, 32, S::f16_min}, GroupFormat{4, 64, S::f16_min},
        GroupFormat{4, 128, S::f16_min}, GroupFormat{4, 128, S::f16}, GroupFormat{8, 32, S::f16},
        GroupFormat{8, 32, S::f16_min}, GroupFormat{4, 32, S::k_quant}}) {
    CAPTURE(f.bits);
    CAPTURE(f.group);
    CAPTURE(static_cast<int>(f.scales));
    for (const int64_t k : {int64_t{128}, int64_t{576}}) {
      for (const int64_t m : {1, 2, 3, 8}) check_groups(f, k, m, Kernel::stream);
      for (const int64_t m : {1, 9, 17, 40}) check_groups(f, k, m, Kernel::tiles);
    }
  }
}

TEST_CASE("cuda int8: packed blocks become rows") {
  const int64_t n = 128, k = 192;
  const std::vector<int8_t> rows = codes(n * k, 9);
  std::vector<int8_t> packed(static_cast<size_t>(n * k));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      packed[static_cast<size_t>(packed_offset(r, i, k))] = rows[static_cast<size_t>(r * k + i)];
    }
  }
  DeviceMemory<int8_t> from(packed), to(n * k);
  unpack_rows(from.data(), n, k, to.data(), nullptr);
  CHECK(std::equal(rows.begin(), rows.end(), to.data()));
}

TEST_CASE("cuda int8: sums that cuBLASLt made are scaled") {
  const int64_t m = 3, n = 128;
  std::vector<int32_t> sums(static_cast<size_t>(m * n));
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = static_cast<int32_t>(i * 977) - 9000;
  const auto scale = floats(n, 1), x_scale = floats(m, 2);
  DeviceMemory<int32_t> s(sums);
  DeviceMemory<float> ds(scale), dx(x_scale), y(m * 192);
  const Int8Run run{nullptr, ds.data(), 64, n, 0};
  const QuantRows x{nullptr, dx.data(), nullptr, 0, 0};
  const LinearTarget target{{y.data(), 192, 190}, nullptr, nullptr};
  for (int64_t i = 0; i < m * 192; ++i) y.data()[i] = 1.0F;
  scale_sums(s.data(), run, false, x, m, target, nullptr);
  scale_sums(s.data(), run, true, x, m, target, nullptr);
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t i = 0; i < 192; ++i) {
      float want = 1.0F;
      if (i >= 64 && i < 190) {
        const auto c = static_cast<size_t>(i - 64);
        const float v = static_cast<float>(sums[static_cast<size_t>(t * n) + c]) *
                        (x_scale[static_cast<size_t>(t)] * scale[c]);
        want = v + v;
      }
      REQUIRE(y.data()[t * 192 + i] == want);
    }
  }
}

TEST_CASE("cuda linear: which kernel takes how many tokens, and how many rows a warp") {
  CHECK(choose_int8_kernel(1) == LinearKernel::stream);
  CHECK(choose_int8_kernel(8) == LinearKernel::stream);
  CHECK(choose_int8_kernel(9) == LinearKernel::tiles);
  CHECK(choose_int8_kernel(64) == LinearKernel::tiles);
  CHECK(choose_int8_kernel(65) == LinearKernel::gemm);
  CHECK(choose_group_kernel(8) == LinearKernel::stream);
  CHECK(choose_group_kernel(2048) == LinearKernel::tiles);
  CHECK(stream_rows_per_warp(2048, 1, 132) == 2);
  CHECK(stream_rows_per_warp(8192, 1, 132) == 2);
  CHECK(stream_rows_per_warp(16384, 4, 132) == 4);
  CHECK(stream_rows_per_warp(16384, 5, 132) == 2);
}
