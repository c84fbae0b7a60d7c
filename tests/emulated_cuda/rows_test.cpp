// Kernels over rows of activations, emulated, against the float reference of quant/ and plain
// loops.
#include "kernels/rows.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cuda_host/device_memory.h"
#include "quant/int8.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

struct Rows {
  int64_t n, width, ld;
  std::vector<float> values;

  Rows(int64_t rows, int64_t w, uint64_t seed) : n(rows), width(w), ld((w + 63) / 64 * 64) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    values.assign(static_cast<size_t>(n * ld), NAN);  // what lies past the width must not matter
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t i = 0; i < width; ++i) values[static_cast<size_t>(r * ld + i)] = normal(random);
    }
  }
  const float* row(int64_t r) const { return values.data() + r * ld; }
};

struct Quantized {
  DeviceMemory<int8_t> q;
  DeviceMemory<float> scale;
  DeviceMemory<int32_t> sum;
  QuantRows rows;

  Quantized(int64_t n, int64_t ld, int64_t group)
      : q(n * ld), scale(n * (group == 0 ? 1 : ld / group)), sum(group == 0 ? 1 : n * ld / group) {
    rows = {q.data(), scale.data(), sum.data(), ld, group};
  }
};

/// Codes and scale of `n` values, as quant/ makes them.
void check_codes(const float* x, int64_t n, const int8_t* q, float scale) {
  std::vector<int8_t> expected(static_cast<size_t>(n));
  const float s = quantize_row_s8(x, n, expected.data());
  CHECK(scale == s);
  int64_t differ = 0;
  for (int64_t i = 0; i < n; ++i) differ += q[i] != expected[static_cast<size_t>(i)] ? 1 : 0;
  CHECK(differ == 0);
}

}  // namespace

TEST_CASE("cuda rows: a row has one scale and the codes of quantize_row_s8") {
  for (const int64_t width : {int64_t{4}, int64_t{64}, int64_t{72}, int64_t{576}, int64_t{2050}}) {
    CAPTURE(width);
    Rows x(3, width, 11);
    DeviceMemory<float> in(x.values);
    const int64_t ld = (width + 255) / 256 * 256;
    Quantized out(3, ld, 0);
    quantize_rows({in.data(), x.ld, width}, 3, out.rows, nullptr);
    for (int64_t r = 0; r < 3; ++r) {
      const int8_t* q = out.q.data() + r * ld;
      check_codes(x.row(r), width, q, out.scale.data()[r]);
      for (int64_t i = width; i < ld; ++i) REQUIRE(q[i] == 0);
    }
  }
}

TEST_CASE("cuda rows: groups have their own scales and sums") {
  for (const int64_t group : {int64_t{32}, int64_t{64}, int64_t{128}}) {
    CAPTURE(group);
    const int64_t width = 640, ld = 768;
    Rows x(2, width, 12);
    DeviceMemory<float> in(x.values);
    Quantized out(2, ld, group);
    quantize_rows({in.data(), x.ld, width}, 2, out.rows, nullptr);
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t g = 0; g < ld / group; ++g) {
        const int8_t* q = out.q.data() + r * ld + g * group;
        int32_t sum = 0;
        for (int64_t i = 0; i < group; ++i) sum += q[i];
        CHECK(out.sum.data()[r * (ld / group) + g] == sum);
        if (g * group < width) {
          check_codes(x.row(r) + g * group, group, q, out.scale.data()[r * (ld / group) + g]);
        } else {
          CHECK(sum == 0);
        }
      }
    }
  }
}

TEST_CASE("cuda rows: NaN is 0 and infinities saturate") {
  Rows x(1, 64, 13);
  x.values[3] = NAN;
  x.values[5] = INFINITY;
  x.values[9] = -INFINITY;
  DeviceMemory<float> in(x.values);
  Quantized out(1, 64, 0);
  quantize_rows({in.data(), 64, 64}, 1, out.rows, nullptr);
  check_codes(x.row(0), 64, out.q.data(), out.scale.data()[0]);
}

TEST_CASE("cuda rows: RMS norm, as floats and quantized at once") {
  for (const int64_t width : {int64_t{64}, int64_t{576}, int64_t{2048}}) {
    Rows x(2, width, 14), gain(1, width, 15);
    DeviceMemory<float> in(x.values), g(gain.values), y(2 * x.ld);
    Quantized q(2, x.ld, 0);
    RowOutputs out;
    out.floats = {y.data(), x.ld, width};
    out.quantized = q.rows;
    rms_norm_rows({in.data(), x.ld, width}, g.data(), 1e-5F, 2, out, nullptr);
    for (int64_t r = 0; r < 2; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) sum += double{x.row(r)[i]} * x.row(r)[i];
      const double factor = 1 / std::sqrt(sum / static_cast<double>(width) + 1e-5);
      for (int64_t i = 0; i < width; ++i) {
        const double want = x.row(r)[i] * factor * gain.values[static_cast<size_t>(i)];
        REQUIRE(y.data()[r * x.ld + i] == doctest::Approx(want).epsilon(1e-6));
      }
      check_codes(y.data() + r * x.ld, width, q.q.data() + r * x.ld, q.scale.data()[r]);
    }
  }
}

TEST_CASE("cuda rows: SwiGLU with its Hadamard") {
  for (const bool hadamard : {false, true}) {
    const int64_t d_ff = 192;
    Rows x(2, 2 * d_ff, 16);
    DeviceMemory<float> in(x.values), y(2 * d_ff);
    RowOutputs out;
    out.floats = {y.data(), d_ff, d_ff};
    swiglu_rows({in.data(), x.ld, 2 * d_ff}, d_ff, hadamard, 2, out, nullptr);
    for (int64_t r = 0; r < 2; ++r) {
      std::vector<double> plain(static_cast<size_t>(d_ff));
      for (int64_t i = 0; i < d_ff; ++i) {
        const double g = x.row(r)[i / 64 * 128 + i % 64], u = x.row(r)[i / 64 * 128 + 64 + i % 64];
        plain[static_cast<size_t>(i)] = g / (1 + std::exp(-g)) * u;
      }
      for (int64_t i = 0; i < d_ff; ++i) {
        double want = plain[static_cast<size_t>(i)];
        if (hadamard) {
          want = 0;
          for (int64_t j = 0; j < 64; ++j) {
            const int sign = __builtin_popcountll(static_cast<uint64_t>(i % 64 & j)) % 2;
            want += (sign != 0 ? -1 : 1) * plain[static_cast<size_t>(i / 64 * 64 + j)] / 8;
          }
        }
        REQUIRE(std::abs(y.data()[r * d_ff + i] - want) < 1e-5);
      }
    }
  }
}

TEST_CASE("cuda rows: SwiGLU of sums is that of the scaled floats, to the bit") {
  const int64_t d_ff = 192, ld = 2 * d_ff;
  std::vector<int32_t> sums(static_cast<size_t>(3 * ld));
  std::mt19937_64 random(17);
  for (auto& s : sums) s = static_cast<int32_t>(random() % 200001) - 100000;
  const Rows x_scale(1, 64, 18), w_scale(1, ld, 19);
  std::vector<float> floats(sums.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    const auto r = static_cast<int64_t>(i) / ld, n = static_cast<int64_t>(i) % ld;
    floats[i] = static_cast<float>(sums[i]) * (1e-4F * x_scale.row(0)[r] * w_scale.row(0)[n]);
  }
  std::vector<float> scales = x_scale.values;
  for (float& s : scales) s *= 1e-4F;
  DeviceMemory<int32_t> ds(sums);
  DeviceMemory<float> df(floats), dx(scales), dw(w_scale.values);
  Quantized from_sums(3, 256, 0), from_floats(3, 256, 0);
  DeviceMemory<float> scratch(3 * d_ff);
  RowOutputs out;
  out.scratch = scratch.data();
  out.scratch_ld = d_ff;
  out.quantized = from_sums.rows;
  swiglu_sums({ds.data(), ld, dx.data(), dw.data()}, d_ff, true, 3, out, nullptr);
  out.quantized = from_floats.rows;
  swiglu_rows({df.data(), ld, ld}, d_ff, true, 3, out, nullptr);
  CHECK(std::equal(from_sums.q.data(), from_sums.q.data() + 3 * 256, from_floats.q.data()));
  CHECK(std::equal(from_sums.scale.data(), from_sums.scale.data() + 3, from_floats.scale.data()));
}
