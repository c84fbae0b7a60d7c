// How well a model predicts a text, and how near one model's predictions are to another's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qllm::app {

/// Natural log-probabilities of logits, in double: log(sum exp) is taken off after the maximum.
void log_softmax(std::span<const float> logits, std::vector<double>& out);

/// Mean and spread of values that come one by one. (Welford, Technometrics 1962.)
class Mean {
 public:
  void add(double value) {
    ++count_;
    const double step = value - mean_;
    mean_ += step / static_cast<double>(count_);
    squares_ += step * (value - mean_);
  }
  int64_t count() const { return count_; }
  double mean() const { return mean_; }
  /// Standard error of the mean, the values taken as independent; 0 for fewer than two.
  double stderror() const;

 private:
  int64_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;
};

/// Over scored positions.
class Score {
 public:
  /// `log_probs`: [vocab], the prediction of `next`.
  void add(std::span<const double> log_probs, int32_t next) {
    negative_log_likelihood_.add(-log_probs[static_cast<size_t>(next)]);
  }
  int64_t count() const { return negative_log_likelihood_.count(); }
  /// exp of the mean negative log-likelihood.
  double perplexity() const;
  /// To first order: perplexity times the standard error of the mean it is made from.
  double perplexity_stderr() const;

 private:
  Mean negative_log_likelihood_;
};

/// Over scored positions of a model against its reference.
class Agreement {
 public:
  /// Both [vocab].
  void add(std::span<const double> reference, std::span<const double> model);
  /// Mean KL(reference || model), in nats.
  const Mean& kl() const { return kl_; }
  double kl_max() const { return kl_max_; }
  /// Fraction of positions where both find the same token the likeliest.
  const Mean& top1() const { return top1_; }

 private:
  Mean kl_;
  Mean top1_;
  double kl_max_ = 0;
};

}  // namespace qllm::app
