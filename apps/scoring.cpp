#include "scoring.h"

#include <algorithm>
#include <cmath>

namespace qllm::app {
namespace {

auto top_of(std::span<const double> values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

}  // namespace

void log_softmax(std::span<const float> logits, std::vector<double>& out) {
  out.assign(logits.begin(), logits.end());
  const double top = *std::max_element(out.begin(), out.end());
  double sum = 0;
  for (const double x : out) sum += std::exp(x - top);
  const double shift = top + std::log(sum);
  for (double& x : out) x -= shift;
}

double Mean::stderror() const {
  if (count_ < 2) return 0;
  const auto n = static_cast<double>(count_);
  return std::sqrt(squares_ / (n - 1) / n);
}

double Score::perplexity() const { return std::exp(negative_log_likelihood_.mean()); }

double Score::perplexity_stderr() const {
  return perplexity() * negative_log_likelihood_.stderror();
}

void Agreement::add(std::span<const double> reference, std::span<const double> model) {
  double kl = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    kl += std::exp(reference[i]) * (reference[i] - model[i]);
  }
  kl_.add(kl);
  kl_max_ = std::max(kl_max_, kl);
  top1_.add(top_of(reference) == top_of(model) ? 1 : 0);
}

}  // namespace qllm::app
