#include "model/rotated_source.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/random.h"

using namespace qllm;  // NOLINT

namespace {

constexpr int64_t kRows = 96;     // 3 x 32
constexpr int64_t kColumns = 40;  // no multiple of 16

/// Tensors "a", "b", … [kRows, kColumns] of random numbers and a vector "gain" [kColumns].
class RandomSource final : public TensorSource {
 public:
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override {
    if (fails && row > 50) fail(ErrorCode::io, "row {}: cannot be read", row);
    reads += count;
    for (int64_t i = 0; i < count * kColumns; ++i) {
      auto state =
          static_cast<uint64_t>(row * kColumns + i) * 7919 + static_cast<uint64_t>(tensor[0]);
      out[i] = static_cast<float>(split_mix_uniform(&state));
    }
  }
  std::optional<GroupFormat> grid(const std::string&) const override { return GroupFormat{}; }
  mutable std::atomic<int64_t> reads{0};
  std::atomic<bool> fails{false};
};

std::vector<float> plain(const std::string& tensor) {
  std::vector<float> w(kRows * kColumns);
  RandomSource().read_rows(tensor, 0, kRows, w.data());
  return w;
}

const Turn kResidual{Turn::Kind::residual, 0};
const Turn kHadamard8{Turn::Kind::hadamard, 8};

struct Fixture {
  std::shared_ptr<RandomSource> inner = std::make_shared<RandomSource>();
  std::shared_ptr<ResidualRotation> residual = std::make_shared<ResidualRotation>(kRows);
  RotatedSource source{inner,
                       {{"a", {"a", kRows, kColumns, {}, kHadamard8, kResidual}},
                        {"b", {"b", kRows, kColumns, {}, {}, kResidual}},
                        {"c", {"c", kRows, kColumns, {}, {}, kHadamard8}}},
                       residual};

  /// turn_rows^T W turn_columns of "a", by whole columns and rows.
  std::vector<float> expected_a() const {
    std::vector<float> w = plain("a");
    hadamard_blocks(w.data(), kRows * kColumns, 8);
    for (int64_t k = 0; k < kColumns; ++k) {
      std::vector<float> column;
      for (int64_t n = 0; n < kRows; ++n)
        column.push_back(w[static_cast<size_t>(n * kColumns + k)]);
      residual->apply(column.data());
      for (int64_t n = 0; n < kRows; ++n) {
        w[static_cast<size_t>(n * kColumns + k)] = column[static_cast<size_t>(n)];
      }
    }
    return w;
  }
};

}  // namespace

TEST_CASE("rotated source: rows by themselves, with their gain and another name") {
  const auto inner = std::make_shared<RandomSource>();
  const auto residual = std::make_shared<ResidualRotation>(kColumns);
  const RotatedSource source(inner,
                             {{"head", {"d", kRows, kColumns, "gain", kResidual, {}}},
                              {"table", {"d", kRows, kColumns, {}, kResidual, {}}},
                              {"blocks", {"d", kRows, kColumns, {}, kHadamard8, {}}}},
                             residual);
  std::vector<float> gain(kColumns), head(2 * kColumns), table(2 * kColumns), blocks(2 * kColumns);
  inner->read_rows("gain", 0, 1, gain.data());
  source.read_rows("head", 7, 2, head.data());
  source.read_rows("table", 7, 2, table.data());
  source.read_rows("blocks", 7, 2, blocks.data());
  std::vector<float> want = plain("d");
  want.assign(want.begin() + 7 * kColumns, want.begin() + 9 * kColumns);
  std::vector<float> turned = want;
  residual->apply(turned.data());
  residual->apply(turned.data() + kColumns);
  CHECK(table == turned);
  turned = want;
  hadamard_blocks(turned.data(), 2 * kColumns, 8);
  CHECK(blocks == turned);
  for (size_t i = 0; i < want.size(); ++i) want[i] *= gain[i % kColumns];
  residual->apply(want.data());
  residual->apply(want.data() + kColumns);
  // The gain times the sign is rounded once, by itself: a rounding more or less in each value.
  for (size_t i = 0; i < want.size(); ++i) CHECK(std::fabs(head[i] - want[i]) < 1e-6F);
  CHECK_THROWS_AS(RotatedSource(inner, {{"x", {"x", 8, 8, "gain", kHadamard8, {}}}}, residual),
                  Error);
}

TEST_CASE("rotated source: what has no entry passes, grid included; a rotated tensor has none") {
  const Fixture f;
  std::vector<float> got(kColumns);
  f.source.read_rows("z", 3, 1, got.data());
  const std::vector<float> w = plain("z");
  CHECK(std::equal(got.begin(), got.end(), w.begin() + 3 * kColumns));
  CHECK(f.source.grid("z").has_value());
  CHECK_FALSE(f.source.grid("a").has_value());
  GroupRow row;
  CHECK_THROWS_AS(f.source.read_grid_row("a", 0, &row), Error);
  CHECK_THROWS_AS(f.source.read_rows("a", kRows - 1, 2, got.data()), Error);
  CHECK_THROWS_AS(f.source.read_rows("a", -1, 1, got.data()), Error);
}

TEST_CASE("rotated source: mixed rows are made once and given up when all are out") {
  const Fixture f;
  const std::vector<float> want = f.expected_a();
  for (int round = 1; round <= 2; ++round) {
    std::vector<float> got(kRows * kColumns);
    const int64_t before = f.inner->reads;
    for (int64_t n = 0; n < kRows; ++n) f.source.read_rows("a", n, 1, got.data() + n * kColumns);
    CHECK(got == want);
    CHECK(f.inner->reads - before == kRows);  // again in the second round: it was given up
  }
}

TEST_CASE("rotated source: threads that read in the same order share the making") {
  const Fixture f;
  const std::vector<float> want = f.expected_a();
  constexpr int kThreads = 4;
  std::vector<float> got(kRows * kColumns), other(kRows * kColumns);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (const char* name : {"a", "b", "c"}) {
        float* out = *name == 'a' ? got.data() : other.data();
        for (int64_t n = kRows * t / kThreads; n < kRows * (t + 1) / kThreads; ++n) {
          f.source.read_rows(name, n, 1, out + n * kColumns);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(got == want);
}

TEST_CASE("rotated source: an error of the source reaches every thread that waits") {
  const Fixture f;
  f.inner->fails = true;
  std::atomic<int> errors{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      std::vector<float> got(kColumns);
      try {
        f.source.read_rows("b", 0, 1, got.data());
      } catch (const Error& e) {
        errors += e.code() == ErrorCode::io ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(errors == 3);
}
