#include "speeds.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"

namespace {

using namespace qllm::cpu;

std::vector<int64_t> sizes(const std::vector<int64_t>& bounds) {
  std::vector<int64_t> out;
  for (size_t i = 1; i < bounds.size(); ++i) out.push_back(bounds[i] - bounds[i - 1]);
  return out;
}

TEST_CASE("speeds: equal workers get what integer division gives them") {
  for (const int64_t units : {0, 1, 5, 9, 64, 768, 12345}) {
    for (const size_t workers : {1, 2, 3, 7, 128}) {
      const auto bounds = share_out(units, std::vector<double>(workers, 1.0));
      REQUIRE(bounds.size() == workers + 1);
      for (size_t w = 0; w <= workers; ++w) {
        CHECK(bounds[w] == units * static_cast<int64_t>(w) / static_cast<int64_t>(workers));
      }
    }
  }
}

TEST_CASE("speeds: shares are as the speeds, to one unit") {
  CHECK(sizes(share_out(60, {2, 2, 1, 1})) == std::vector<int64_t>{20, 20, 10, 10});
  CHECK(sizes(share_out(10, {4, 1})) == std::vector<int64_t>{8, 2});
  std::mt19937 random(1);
  std::uniform_real_distribution<double> speed(0.1, 4.0);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> speeds(1 + random() % 40);
    for (double& s : speeds) s = speed(random);
    double total = 0;
    for (const double s : speeds) total += s;
    const auto units = static_cast<int64_t>(random() % 2000);
    const auto bounds = share_out(units, speeds);
    CHECK(bounds.front() == 0);
    CHECK(bounds.back() == units);
    for (size_t w = 0; w < speeds.size(); ++w) {
      const double fair = static_cast<double>(units) * speeds[w] / total;
      CHECK(std::abs(static_cast<double>(bounds[w + 1] - bounds[w]) - fair) <= 1.0 + 1e-9);
    }
  }
}

TEST_CASE("speeds: with eight fast and sixteen slow cores the slowest share ends sooner") {
  // 8 cores of speed 1 and 16 of 0.55, 512 blocks: the time of a step is the longest share's.
  std::vector<double> speeds(24, 0.55);
  std::fill(speeds.begin(), speeds.begin() + 8, 1.0);
  const auto longest = [&](const std::vector<int64_t>& parts) {
    double most = 0;
    for (size_t w = 0; w < parts.size(); ++w) {
      most = std::max(most, static_cast<double>(parts[w]) / speeds[w]);
    }
    return most;
  };
  const double even = longest(sizes(share_out(512, std::vector<double>(24, 1.0))));
  const double weighted = longest(sizes(share_out(512, speeds)));
  const double best = 512 / (8 + 16 * 0.55);  // no blocks, no rounding
  CHECK(even > 1.25 * best);
  CHECK(weighted < 1.1 * best);  // 17 blocks of a slow core, one more than its 16.8
}

TEST_CASE("speeds: nonsense is refused") {
  CHECK_THROWS_AS(share_out(1, {}), qllm::Error);
  CHECK_THROWS_AS(share_out(1, {1, 0}), qllm::Error);
  CHECK_THROWS_AS(share_out(1, {1, NAN}), qllm::Error);
}

TEST_CASE("speeds: measured ones are positive and of mean one") {
  const auto topology = Topology::detect({2, "", ""});
  WorkerPool pool(*topology);
  const auto speeds = measure_speeds(pool, *topology);
  REQUIRE(speeds.size() == 2);
  CHECK(speeds[0] > 0);
  CHECK(speeds[1] > 0);
  CHECK(speeds[0] + speeds[1] == doctest::Approx(2));
}

}  // namespace
