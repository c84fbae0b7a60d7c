// A TensorSource over another one whose tensors come out rotated.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/rotation.h"

namespace qllm {

/// What is done to one side of a matrix.
struct Turn {
  enum class Kind : uint8_t { none, residual, hadamard };
  Kind kind = Kind::none;
  int64_t block = 0;  // of hadamard: a power of two
};

/// What becomes of one tensor W [rows, columns]: turn_rows^T (W diag(gain)) turn_columns.
struct TensorRotation {
  std::string source;  // its name in the wrapped source
  int64_t rows = 0;
  int64_t columns = 0;
  std::string gain;   // a vector [columns] of the wrapped source; empty: ones.
                      // Only where turn_columns is residual
  Turn turn_columns;  // each row is turned, by itself
  Turn turn_rows;     // each column is turned: rows are mixed
};

/// Where rows are mixed, the tensor is made once, by all threads that ask for rows of it, and held
/// as float32 until every row was handed out (or two other such tensors are wanted): a load in the
/// order of the weights makes each once. What comes to be in it does not depend on the threads.
class RotatedSource final : public TensorSource {
 public:
  /// Tensors without an entry in `rotations` pass as they are. `residual` serves Turn::residual and
  /// may be null where there is none. Throws what `source` throws for gains.
  RotatedSource(std::shared_ptr<const TensorSource> source,
                std::map<std::string, TensorRotation> rotations,
                std::shared_ptr<const ResidualRotation> residual);
  ~RotatedSource() override;

  /// Throws what the wrapped source throws, out_of_memory, invalid_argument for rows outside of a
  /// tensor.
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override;
  /// Nothing for a rotated tensor.
  std::optional<GroupFormat> grid(const std::string& tensor) const override;
  void read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const override;
  void release() const override { source_->release(); }

 private:
  class Mixed;  // a tensor whose rows are mixed, whole
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  using Memory = std::unique_ptr<float, Free>;
  static Memory allocate(size_t values);
  const TensorRotation* find(const std::string& tensor) const;
  void read_turned(const TensorRotation& rotation, int64_t row, int64_t count, float* out) const;
  void turn(const Turn& turn, float* x, int64_t size, int64_t lanes) const;
  std::shared_ptr<Mixed> mixed(const TensorRotation& rotation) const;
  void release(const Mixed* whole) const;
  void give_back(Memory memory) const;

  std::shared_ptr<const TensorSource> source_;
  std::map<std::string, TensorRotation> rotations_;
  std::map<std::string, std::vector<float>> factors_;  // by gain: ResidualRotation::factor
  std::shared_ptr<const ResidualRotation> residual_;
  size_t most_mixed_ = 0;  // values of the largest tensor whose rows are mixed
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  mutable std::vector<std::shared_ptr<Mixed>> live_;  // the oldest first
  mutable std::vector<Memory> free_;                  // memory for the next: fresh pages cost
  mutable int64_t to_come_ = 0;  // tensors of a first load that are not all handed out
};

}  // namespace qllm
