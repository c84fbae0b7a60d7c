// Orthogonal rotations that are folded into weights, so that no input of a linear has outliers and
// a scale per token serves: QuaRot (arXiv 2404.00456), docs/decisions.md. In exact arithmetic the
// function of the model stays as it is.
#pragma once

#include <cstdint>
#include <vector>

namespace qllm {

// The transforms take x [size, lanes] and turn each of the `lanes` columns on its own. `lanes` is 1
// (a vector that lies in one piece) or a multiple of 4.

/// Which rotations a model runs with.
struct Rotations {
  bool residual = false;  ///< x Q of the residual stream; the gains of its norms are folded too
  bool heads = false;     ///< Hadamard in each head of v, undone by the attention's output matrix
  bool ffn = false;       ///< Hadamard in blocks of 64 on the input of the FFN's second matrix
  bool any() const { return residual || heads || ffn; }
  friend bool operator==(const Rotations&, const Rotations&) = default;
};

inline constexpr int32_t kFfnRotationBlock = 64;

/// Each block of `block` values by the normalised Hadamard matrix, H[i, j] = (-1)^popcount(i & j) /
/// sqrt(block): its own inverse and transpose. Preconditions: block a power of two, size a multiple
/// of it.
void hadamard_blocks(float* x, int64_t size, int64_t block, int64_t lanes = 1);

/// x Q for a fixed orthogonal Q [size, size] = diag(signs) (R (x) H): H the normalised Hadamard
/// matrix of the largest power of two in `size`, R a random orthogonal matrix of the odd rest. The
/// same for the same size on every machine and with every compiler. Immutable.
class ResidualRotation {
 public:
  /// Whether `size` has a Q: its odd factor is at most 255 (R is dense), and size is at least 2.
  static bool supports(int64_t size);
  /// Precondition: supports(size).
  explicit ResidualRotation(int64_t size);

  int64_t size() const { return size_; }
  /// x <- x Q, in size (odd factor + log size) steps a lane.
  void apply(float* x, int64_t lanes = 1) const;
  /// What apply() below needs to multiply x [size] by `gain` first; empty: ones.
  std::vector<float> factor(const std::vector<float>& gain) const;
  /// x <- (x diag(gain)) Q of one row, `factor` of that gain: nothing but the rotation is paid for.
  void apply(float* x, const float* factor) const;

 private:
  void mix_segments(float* x, int64_t length) const;

  int64_t size_;
  int64_t odd_;
  int64_t power_;            // size = odd * power
  std::vector<float> sign_;  // [size], 1 or -1 divided by sqrt(power)
  std::vector<float> r_t_;   // R^T [odd, odd]
};

}  // namespace qllm
