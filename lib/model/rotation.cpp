#include "model/rotation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "core/error.h"
#include "core/random.h"

namespace qllm {
namespace {

constexpr int64_t kMaxOdd = 255;
constexpr uint64_t kSeed = 0x716C6C6D526F7431ULL;  // part of the rotation: never change it

/// Four floats in a register of any machine that the library runs on (GCC's vector extension).
using Float4 [[gnu::vector_size(16)]] = float;
constexpr int64_t kLanes = 4;

Float4 load(const float* p) {
  Float4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

void store(Float4 v, float* p) { std::memcpy(p, &v, sizeof v); }

constexpr int64_t kChunk = 4 * kLanes;

/// `count` floats, mostly kChunk: that case is a few moves instead of a call.
void copy_some(const float* from, int64_t count, float* to) {
  if (count == kChunk) {
    std::memcpy(to, from, kChunk * sizeof(float));
  } else {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  }
}

/// The transform of 4 values within a register: pairs 1 apart, then pairs 2 apart.
Float4 hadamard4(Float4 v) {
  v = __builtin_shufflevector(v, v, 1, 0, 3, 2) + v * Float4{1, -1, 1, -1};
  return __builtin_shufflevector(v, v, 2, 3, 0, 1) + v * Float4{1, 1, -1, -1};
}

/// Pairs `apart` floats apart in x [length]: (a, b) -> (a + b, a - b).
void stage(float* x, int64_t length, int64_t apart) {
  for (int64_t i = 0; i < length; i += 2 * apart) {
    for (int64_t j = i; j < i + apart; j += kLanes) {
      const Float4 a = load(x + j), b = load(x + j + apart);
      store(a + b, x + j);
      store(a - b, x + j + apart);
    }
  }
}

/// Pairs `apart` and then 2 * apart apart, in one pass over x.
void two_stages(float* x, int64_t length, int64_t apart) {
  for (int64_t i = 0; i < length; i += 4 * apart) {
    for (int64_t j = i; j < i + apart; j += kLanes) {
      float* p = x + j;
      const Float4 a = load(p), b = load(p + apart);
      const Float4 c = load(p + 2 * apart), d = load(p + 3 * apart);
      const Float4 ab = a + b, a_b = a - b, cd = c + d, c_d = c - d;
      store(ab + cd, p);
      store(a_b + c_d, p + apart);
      store(ab - cd, p + 2 * apart);
      store(a_b - c_d, p + 3 * apart);
    }
  }
}

/// Stages of pairs `apart` and more apart.
void stages_from(float* x, int64_t length, int64_t apart) {
  for (; 4 * apart <= length; apart *= 4) two_stages(x, length, apart);
  if (apart < length) stage(x, length, apart);
}

/// The Walsh-Hadamard transform, not normalised, of x [size]: values times factor(i) (of i to i +
/// 3), then pairs 1, 2, 4, ... apart. The first stages meet in registers.
template <typename Factor>
void transform_row(float* x, int64_t size, const Factor& factor) {
  const auto first = [&](int64_t i) { return hadamard4(load(x + i) * factor(i)); };
  if (size < kChunk) {
    for (int64_t i = 0; i < size; i += kLanes) store(first(i), x + i);
    return stages_from(x, size, kLanes);
  }
  for (int64_t i = 0; i < size; i += kChunk) {
    const Float4 a = first(i), b = first(i + kLanes);
    const Float4 c = first(i + 2 * kLanes), d = first(i + 3 * kLanes);
    const Float4 ab = a + b, a_b = a - b, cd = c + d, c_d = c - d;
    store(ab + cd, x + i);
    store(a_b + c_d, x + i + kLanes);
    store(ab - cd, x + i + 2 * kLanes);
    store(a_b - c_d, x + i + 3 * kLanes);
  }
  stages_from(x, size, kChunk);
}

/// The same of fewer than 4 values.
void transform_few(float* x, int64_t size, const float* factor) {
  for (int64_t i = 0; i < size; ++i) x[i] *= factor[i];
  if (size < 2) return;
  const float a = x[0], b = x[1];
  x[0] = a + b;
  x[1] = a - b;
}

/// Rows of a random orthogonal matrix [n, n]: Gram-Schmidt, each row twice, so that rounding leaves
/// them orthogonal to double precision.
std::vector<double> random_orthogonal(int64_t n, uint64_t* state) {
  std::vector<double> r(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) {
    double* row = r.data() + i * n;
    double norm = 0.0;
    while (norm < 1e-3) {  // all but parallel to the rows before: take another
      for (int64_t k = 0; k < n; ++k) row[k] = split_mix_uniform(state);
      for (int64_t j = 0; j < 2 * i; ++j) {
        const double* other = r.data() + j % i * n;
        double dot = 0.0;
        for (int64_t k = 0; k < n; ++k) dot += row[k] * other[k];
        for (int64_t k = 0; k < n; ++k) row[k] -= dot * other[k];
      }
      norm = 0.0;
      for (int64_t k = 0; k < n; ++k) norm += row[k] * row[k];
      norm = std::sqrt(norm);
    }
    for (int64_t k = 0; k < n; ++k) row[k] /= norm;
  }
  return r;
}

}  // namespace

void hadamard_blocks(float* x, int64_t size, int64_t block, int64_t lanes) {
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(block)));
  const float each[kLanes] = {scale, scale, scale, scale};
  const Float4 scales = load(each);
  for (int64_t i = 0; i < size; i += block) {
    float* p = x + i * lanes;
    if (lanes > 1) {
      for (int64_t j = 0; j < block * lanes; ++j) p[j] *= scale;
      stages_from(p, block * lanes, lanes);
    } else if (block < kLanes) {
      transform_few(p, block, each);
    } else {
      transform_row(p, block, [&](int64_t) { return scales; });
    }
  }
}

bool ResidualRotation::supports(int64_t size) {
  return size >= 2 && size / (size & -size) <= kMaxOdd;
}

ResidualRotation::ResidualRotation(int64_t size)
    : size_(size), odd_(size / (size & -size)), power_(size & -size) {
  require(supports(size), ErrorCode::internal, "rotation of {} values: odd factor {} above {}",
          size, odd_, kMaxOdd);
  uint64_t state = kSeed;
  const double scale = 1.0 / std::sqrt(static_cast<double>(power_));
  for (int64_t i = 0; i < size; ++i) {
    sign_.push_back(static_cast<float>((split_mix(&state) >> 63) != 0 ? -scale : scale));
  }
  if (odd_ == 1) return;
  const std::vector<double> r = random_orthogonal(odd_, &state);
  for (int64_t b = 0; b < odd_; ++b) {
    for (int64_t a = 0; a < odd_; ++a) {
      r_t_.push_back(static_cast<float>(r[static_cast<size_t>(a * odd_ + b)]));
    }
  }
}

std::vector<float> ResidualRotation::factor(const std::vector<float>& gain) const {
  std::vector<float> all = sign_;
  for (size_t i = 0; i < all.size() && !gain.empty(); ++i) all[i] *= gain[i];
  return all;
}

void ResidualRotation::apply(float* x, const float* factor) const {
  for (int64_t s = 0; s < size_; s += power_) {
    const float* f = factor + s;
    if (power_ < kLanes) {
      transform_few(x + s, power_, f);
    } else {
      transform_row(x + s, power_, [&](int64_t i) { return load(f + i); });
    }
  }
  if (odd_ > 1) mix_segments(x, power_);
}

void ResidualRotation::apply(float* x, int64_t lanes) const {
  if (lanes == 1) return apply(x, sign_.data());
  for (int64_t i = 0; i < size_; ++i) {
    for (int64_t l = 0; l < lanes; ++l) x[i * lanes + l] *= sign_[static_cast<size_t>(i)];
  }
  const int64_t length = power_ * lanes;
  for (int64_t s = 0; s < odd_; ++s) stages_from(x + s * length, length, lanes);
  if (odd_ > 1) mix_segments(x, length);
}

/// x as [odd, length]: x <- R^T x. Registers of 16 floats of each segment wait in `before`.
void ResidualRotation::mix_segments(float* x, int64_t length) const {
  float before[kMaxOdd * kChunk] = {};
  for (int64_t j = 0; j < length; j += kChunk) {
    const int64_t count = std::min(kChunk, length - j);
    for (int64_t a = 0; a < odd_; ++a) {
      copy_some(x + a * length + j, count, before + a * kChunk);
    }
    for (int64_t b = 0; b < odd_; ++b) {
      Float4 s0 = {}, s1 = {}, s2 = {}, s3 = {};
      for (int64_t a = 0; a < odd_; ++a) {
        const float r = r_t_[static_cast<size_t>(b * odd_ + a)];
        const float* p = before + a * kChunk;
        s0 += r * load(p);
        s1 += r * load(p + kLanes);
        s2 += r * load(p + 2 * kLanes);
        s3 += r * load(p + 3 * kLanes);
      }
      float sum[kChunk];
      store(s0, sum), store(s1, sum + kLanes), store(s2, sum + 2 * kLanes);
      store(s3, sum + 3 * kLanes);
      copy_some(sum, count, x + b * length + j);
    }
  }
}

}  // namespace qllm
