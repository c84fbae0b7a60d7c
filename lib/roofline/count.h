// Counts that say so when they grow beyond 63 bits, instead of wrapping round.
#pragma once

#include <cstdint>

#include "core/error.h"

namespace qllm::roofline {

/// A non-negative integer. Sums and products throw invalid_argument where they do not fit.
class Count {
 public:
  constexpr Count(int64_t value) : value_(value) {}  // NOLINT: counts are written as integers
  int64_t value() const { return value_; }

  friend Count operator*(Count a, Count b) {
    int64_t out = 0;
    require(!__builtin_mul_overflow(a.value_, b.value_, &out), ErrorCode::invalid_argument,
            "roofline: {} x {} is beyond what can be counted", a.value_, b.value_);
    return out;
  }
  friend Count operator+(Count a, Count b) {
    int64_t out = 0;
    require(!__builtin_add_overflow(a.value_, b.value_, &out), ErrorCode::invalid_argument,
            "roofline: {} + {} is beyond what can be counted", a.value_, b.value_);
    return out;
  }
  Count& operator+=(Count other) { return *this = *this + other; }

 private:
  int64_t value_;
};

}  // namespace qllm::roofline
