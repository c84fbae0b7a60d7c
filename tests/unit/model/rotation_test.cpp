// The rotations against their matrices. u = 2^-24.
#include "model/rotation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/random.h"

using namespace qllm;  // NOLINT

namespace {

constexpr double kU = 0x1p-24;

std::vector<float> uniform(int64_t n, uint64_t seed) {
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = static_cast<float>(split_mix_uniform(&seed));
  return v;
}

/// Row i of Q.
std::vector<float> row_of(const ResidualRotation& q, int64_t i) {
  std::vector<float> v(static_cast<size_t>(q.size()));
  v[static_cast<size_t>(i)] = 1.0F;
  q.apply(v.data());
  return v;
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

TEST_CASE("hadamard_blocks: equals the dense matrix, in one lane and in several") {
  // log2(block) additions on each path, the scale and its product: (log2 + 3) u of the magnitudes.
  for (const int64_t block : {1, 2, 4, 8, 16, 32, 64, 128, 1024}) {
    const int64_t size = 3 * block;
    for (const int64_t lanes : {1, 4, 16}) {
      const auto x = uniform(size * lanes, static_cast<uint64_t>(block + lanes));
      auto y = x;
      hadamard_blocks(y.data(), size, block, lanes);
      const double scale = 1.0 / std::sqrt(static_cast<double>(block));
      for (int64_t i = 0; i < size; ++i) {
        for (int64_t l = 0; l < lanes; ++l) {
          double want = 0, magnitude = 0;
          for (int64_t j = 0; j < block; ++j) {
            const double term = x[static_cast<size_t>((i / block * block + j) * lanes + l)] * scale;
            want += std::popcount(static_cast<uint64_t>(i % block & j)) % 2 != 0 ? -term : term;
            magnitude += std::fabs(term);
          }
          const double bound = (std::log2(static_cast<double>(block)) + 3) * kU * magnitude;
          REQUIRE(std::fabs(y[static_cast<size_t>(i * lanes + l)] - want) <= bound);
        }
      }
    }
  }
}

TEST_CASE("residual rotation: Q is orthogonal to 1e-6 and dense") {
  for (const int64_t d : {2, 64, 72, 576, 640, 3072, 7168}) {
    CAPTURE(d);
    const ResidualRotation q(d);
    std::vector<std::vector<float>> rows;
    const int64_t step = d <= 640 ? 1 : d / 61;  // all rows, or some of every segment
    for (int64_t i = 0; i < d; i += step) rows.push_back(row_of(q, i));
    double worst = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      for (size_t j = 0; j <= i; ++j) {
        worst = std::max(worst, std::fabs(dot(rows[i], rows[j]) - (i == j ? 1.0 : 0.0)));
      }
    }
    CHECK(worst < 1e-6);
    // No value of a row stands out: an outlier in one place is spread over all. The entries of R
    // are those of a random unit vector of `odd` values.
    const auto size = static_cast<double>(d);
    const auto odd = static_cast<double>(d / (d & -d));
    float largest = 0;
    for (const float v : rows[0]) largest = std::max(largest, std::fabs(v));
    CHECK(largest <= 1.001 * std::sqrt(odd / size));
  }
}

TEST_CASE("residual rotation: lanes are turned alike, and lengths stay") {
  for (const int64_t d : {64, 96, 576}) {
    const ResidualRotation q(d);
    const int64_t lanes = 16;
    const auto x = uniform(d * lanes, 5);
    auto y = x;
    q.apply(y.data(), lanes);
    for (int64_t l = 0; l < lanes; ++l) {
      std::vector<float> alone, turned;
      for (int64_t i = 0; i < d; ++i) {
        alone.push_back(x[static_cast<size_t>(i * lanes + l)]);
        turned.push_back(y[static_cast<size_t>(i * lanes + l)]);
      }
      const double length = dot(alone, alone);
      q.apply(alone.data());
      CHECK(alone == turned);  // the same additions in the same order
      CHECK(std::fabs(dot(alone, alone) - length) < 1e-6 * length);
    }
  }
}

TEST_CASE("residual rotation: the same on every machine") {
  // Values of the first build (GCC 12): another compiler, library or machine must give them too.
  const auto row = row_of(ResidualRotation(576), 100);
  CHECK(row[0] == -0x1.ae7a2ap-5F);
  CHECK(row[64] == -0x1.325574p-6F);
  CHECK(row[200] == 0x1.8dc70cp-6F);
  CHECK(row[575] == -0x1.0b111ep-4F);
}

TEST_CASE("residual rotation: sizes without a Q are told apart") {
  CHECK(ResidualRotation::supports(2));
  CHECK(ResidualRotation::supports(255));
  CHECK(ResidualRotation::supports(255 * 256));
  CHECK_FALSE(ResidualRotation::supports(257 * 64));
  CHECK_FALSE(ResidualRotation::supports(1));
  CHECK_FALSE(ResidualRotation::supports(0));
}
