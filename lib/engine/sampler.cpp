#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace qllm {
namespace {

void check(const GenerateOptions& o) {
  constexpr auto kBad = ErrorCode::invalid_argument;
  require(std::isfinite(o.temperature) && o.temperature >= 0.0F, kBad,
          "temperature: {} is not a number >= 0", o.temperature);
  require(o.top_k >= 0, kBad, "top_k: {} is negative", o.top_k);
  require(o.top_p > 0.0F && o.top_p <= 1.0F, kBad, "top_p: {} is not in (0, 1]", o.top_p);
  require(o.min_p >= 0.0F && o.min_p <= 1.0F, kBad, "min_p: {} is not in [0, 1]", o.min_p);
  require(std::isfinite(o.repeat_penalty) && o.repeat_penalty > 0.0F, kBad,
          "repeat_penalty: {} is not a number > 0", o.repeat_penalty);
  require(o.repeat_window >= 0, kBad, "repeat_window: {} is negative", o.repeat_window);
  require(o.max_tokens >= -1, kBad, "max_tokens: {} is neither a count nor -1", o.max_tokens);
}

uint64_t entropy() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

int32_t argmax(std::span<const float> logits) {
  int64_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) continue;
    if (best < 0 || logits[i] > logits[static_cast<size_t>(best)]) best = static_cast<int64_t>(i);
  }
  require(best >= 0, ErrorCode::internal, "sampler: all logits are NaN");
  return static_cast<int32_t>(best);
}

}  // namespace

Sampler::Sampler(const GenerateOptions& options, int64_t vocab) : options_(options) {
  check(options);
  rng_.seed(options.seed != 0 ? options.seed : entropy());
  if (options.temperature > 0.0F) candidates_.reserve(static_cast<size_t>(vocab));
  if (options.repeat_penalty != 1.0F) seen_.assign(static_cast<size_t>(vocab), 0);
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> recent) {
  if (options_.repeat_penalty != 1.0F) penalise(logits, recent);
  if (options_.temperature == 0.0F) return argmax(logits);
  collect(logits);
  keep_top_k();
  keep_top_p_and_min_p();
  return draw();
}

// Keskar et al., arXiv 1909.05858: positive logits are divided, negative ones multiplied, once per
// token however often it occurs.
void Sampler::penalise(std::span<float> logits, std::span<const int32_t> recent) {
  const auto window = std::min(recent.size(), static_cast<size_t>(options_.repeat_window));
  const auto last = recent.last(window);
  for (int32_t id : last) {
    auto& seen = seen_[static_cast<size_t>(id)];
    float& logit = logits[static_cast<size_t>(id)];
    if (seen != 0) continue;
    seen = 1;
    logit = logit > 0.0F ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
  }
  for (int32_t id : last) seen_[static_cast<size_t>(id)] = 0;
}

void Sampler::collect(std::span<const float> logits) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isnan(logits[i])) candidates_.push_back({static_cast<int32_t>(i), logits[i], 0.0});
  }
  require(!candidates_.empty(), ErrorCode::internal, "sampler: all logits are NaN");
}

void Sampler::keep_top_k() {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  };
  const auto k = static_cast<size_t>(options_.top_k);
  if (k > 0 && k < candidates_.size()) {
    const auto nth = candidates_.begin() + static_cast<std::ptrdiff_t>(k);
    std::nth_element(candidates_.begin(), nth, candidates_.end(), likelier);
    candidates_.resize(k);
  }
  std::sort(candidates_.begin(), candidates_.end(), likelier);
}

void Sampler::keep_top_p_and_min_p() {
  const float top = candidates_.front().logit;
  double sum = 0.0;
  for (Candidate& c : candidates_) {
    c.p = c.logit == top ? 1.0 : std::exp(static_cast<double>(c.logit) - top);
    sum += c.p;
  }
  size_t keep = 0;
  double mass = 0.0;
  while (keep < candidates_.size()) {
    const double p = candidates_[keep].p;
    if (keep > 0 && (p < static_cast<double>(options_.min_p) || mass >= options_.top_p * sum))
      break;
    mass += p;
    ++keep;
  }
  candidates_.resize(keep);
}

int32_t Sampler::draw() {
  const float top = candidates_.front().logit;
  double sum = 0.0;
  for (Candidate& c : candidates_) {
    const double x = (static_cast<double>(c.logit) - top) / options_.temperature;
    c.p = c.logit == top ? 1.0 : std::exp(x);
    sum += c.p;
  }
  const double u = static_cast<double>(rng_() >> 11) * 0x1.0p-53 * sum;
  double mass = 0.0;
  for (const Candidate& c : candidates_) {
    mass += c.p;
    if (u < mass) return c.id;
  }
  return candidates_.back().id;
}

}  // namespace qllm
