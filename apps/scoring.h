// How well a model predicts a text, and how near one model's predictions are to another's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qllm::app {

/// Natural log-probabilities of logits, in double: log(sum exp) is taken off after the maximum.
void log_softmax(std::span<const float> logits, std::vector<double>& out);

/// Sums over scored positions.
class Score {
 public:
  /// `log_probs`: [vocab], the prediction of `next`.
  void add(std::span<const double> log_probs, int32_t next) {
    negative_log_likelihood_ -= log_probs[static_cast<size_t>(next)];
    ++count_;
  }
  int64_t count() const { return count_; }
  /// exp of the mean negative log-likelihood.
  double perplexity() const;

 private:
  double negative_log_likelihood_ = 0;
  int64_t count_ = 0;
};

/// Sums over scored positions of a model against its reference.
class Agreement {
 public:
  /// Both [vocab].
  void add(std::span<const double> reference, std::span<const double> model);
  /// Mean KL(reference || model), in nats.
  double kl_mean() const;
  double kl_max() const { return kl_max_; }
  /// Fraction of positions where both find the same token the likeliest.
  double top1() const;

 private:
  double kl_sum_ = 0;
  double kl_max_ = 0;
  int64_t same_top_ = 0;
  int64_t count_ = 0;
};

}  // namespace qllm::app
