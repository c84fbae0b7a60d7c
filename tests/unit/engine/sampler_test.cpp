#include "engine/sampler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>

namespace {

int32_t sample_once(const qllm::GenerateOptions& options, std::vector<float> logits,
                    std::vector<int32_t> recent = {}) {
  qllm::Sampler sampler(options, static_cast<int64_t>(logits.size()));
  return sampler.sample(logits, recent);
}

std::map<int32_t, int> histogram(const qllm::GenerateOptions& options,
                                 const std::vector<float>& logits, int draws) {
  qllm::Sampler sampler(options, static_cast<int64_t>(logits.size()));
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> copy = logits;
    ++counts[sampler.sample(copy, {})];
  }
  return counts;
}

qllm::GenerateOptions plain() {
  qllm::GenerateOptions o;
  o.temperature = 1.0F;
  o.top_k = 0;
  o.top_p = 1.0F;
  o.min_p = 0.0F;
  o.seed = 7;
  return o;
}

}  // namespace

TEST_CASE("sampler: greedy takes the largest, the lowest id on a tie, never NaN") {
  qllm::GenerateOptions o = plain();
  o.temperature = 0.0F;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(sample_once(o, {1.0F, 3.0F, 3.0F, 2.0F}) == 1);
  CHECK(sample_once(o, {nan, -5.0F, nan, -4.0F}) == 3);
  CHECK_THROWS_AS(sample_once(o, {nan, nan}), qllm::Error);
}

TEST_CASE("sampler: draws follow the softmax") {
  // p = 1/7, 2/7, 4/7; 30,000 draws: sigma of a frequency < 0.0029, bound 5 sigma
  const auto counts = histogram(plain(), {0.0F, std::log(2.0F), std::log(4.0F)}, 30000);
  CHECK(counts.at(0) / 30000.0 == doctest::Approx(1.0 / 7).epsilon(0.0145 * 7));
  CHECK(std::abs(counts.at(1) / 30000.0 - 2.0 / 7) < 0.0145);
  CHECK(std::abs(counts.at(2) / 30000.0 - 4.0 / 7) < 0.0145);
}

TEST_CASE("sampler: top-k, top-p and min-p cut what they say") {
  const std::vector<float> logits = {std::log(0.5F), std::log(0.3F), std::log(0.15F),
                                     std::log(0.05F)};
  qllm::GenerateOptions o = plain();
  o.top_k = 2;
  CHECK(histogram(o, logits, 2000).size() == 2);
  o = plain();
  o.top_p = 0.79F;  // 0.5 < 0.79 <= 0.8: two tokens
  CHECK(histogram(o, logits, 2000).size() == 2);
  o = plain();
  o.min_p = 0.2F;  // 0.2 * 0.5 = 0.1: three tokens
  CHECK(histogram(o, logits, 5000).size() == 3);
  o = plain();
  o.temperature = 0.05F;
  CHECK(histogram(o, logits, 2000).at(0) > 1990);
}

TEST_CASE("sampler: the penalty divides positive, multiplies negative logits, once per token") {
  qllm::GenerateOptions o = plain();
  o.temperature = 0.0F;
  o.repeat_penalty = 2.0F;
  CHECK(sample_once(o, {4.0F, 3.0F}, {0, 0, 0}) == 1);
  CHECK(sample_once(o, {4.0F, 1.9F}, {0, 0, 0}) == 0);  // 4/2 = 2, not 4/8
  CHECK(sample_once(o, {-1.0F, -1.5F}, {0}) == 1);
  o.repeat_window = 1;
  CHECK(sample_once(o, {4.0F, 3.0F}, {0, 1}) == 0);  // only token 1 is recent
}

TEST_CASE("sampler: the same seed gives the same tokens, absurd options are refused") {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  qllm::Sampler a(plain(), 100);
  qllm::Sampler b(plain(), 100);
  for (int i = 0; i < 50; ++i) {
    std::vector<float> x = logits;
    std::vector<float> y = logits;
    CHECK(a.sample(x, {}) == b.sample(y, {}));
  }
  const auto refused = [](auto change) {
    qllm::GenerateOptions o = plain();
    change(o);
    CHECK_THROWS_AS(qllm::Sampler(o, 10), qllm::Error);
  };
  refused([](auto& o) { o.temperature = -1.0F; });
  refused([](auto& o) { o.temperature = std::numeric_limits<float>::quiet_NaN(); });
  refused([](auto& o) { o.top_k = -1; });
  refused([](auto& o) { o.top_p = 0.0F; });
  refused([](auto& o) { o.top_p = 1.5F; });
  refused([](auto& o) { o.min_p = -0.1F; });
  refused([](auto& o) { o.repeat_penalty = 0.0F; });
  refused([](auto& o) { o.repeat_window = -1; });
  refused([](auto& o) { o.max_tokens = -2; });
}
