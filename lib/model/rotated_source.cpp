#include "model/rotated_source.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <utility>

#include "core/error.h"
#include "core/math.h"

namespace qllm {
namespace {

constexpr size_t kMostLive = 2;    // float32 tensors held at a time
constexpr int64_t kRowChunk = 16;  // rows that a thread reads at a time
constexpr int64_t kLanes = 16;     // columns that are turned at a time: a line of each row

/// `count` items of work shared by all threads that come; each leaves when all items are done.
class SharedWork {
 public:
  explicit SharedWork(int64_t count) : count_(count) {}

  /// Rethrows the first exception of any thread's work.
  template <typename Work>
  void help(const Work& work) {
    int64_t mine = 0;
    for (int64_t i = next_++; i < count_; i = next_++, ++mine) {
      if (failed_) continue;
      try {
        work(i);
      } catch (...) {
        fail(std::current_exception());
      }
    }
    std::unique_lock lock(mutex_);
    done_ += mine;
    if (done_ == count_) all_done_.notify_all();
    all_done_.wait(lock, [this] { return done_ == count_; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    failed_ = true;
  }

  const int64_t count_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable all_done_;
  int64_t done_ = 0;          // guarded by mutex_
  std::exception_ptr error_;  // guarded by mutex_
};

}  // namespace

/// Made in two passes: rows are read and turned, then columns are turned, a stripe of them at a
/// time.
class RotatedSource::Mixed {
 public:
  explicit Mixed(const TensorRotation& rotation)
      : rotation_(rotation),
        data_(new float[static_cast<size_t>(rotation.rows * rotation.columns)]),
        rows_(ceil_div(rotation.rows, kRowChunk)),
        stripes_(ceil_div(rotation.columns, kLanes)) {}

  bool is(const TensorRotation& rotation) const { return &rotation == &rotation_; }

  void make(const RotatedSource& source) {
    rows_.help([&](int64_t i) {
      const int64_t row = i * kRowChunk;
      source.read_turned(rotation_, row, std::min(kRowChunk, rotation_.rows - row), at(row, 0));
    });
    stripes_.help([&](int64_t i) { turn_stripe(source, i * kLanes); });
  }

  /// Whether all rows are out with these.
  bool hand_out(int64_t row, int64_t count, float* out) {
    std::copy(at(row, 0), at(row + count, 0), out);
    return (handed_out_ += count) >= rotation_.rows;
  }

 private:
  float* at(int64_t row, int64_t column) { return data_.get() + row * rotation_.columns + column; }

  void turn_stripe(const RotatedSource& source, int64_t column) {
    const auto bytes =
        static_cast<size_t>(std::min(kLanes, rotation_.columns - column)) * sizeof(float);
    std::vector<float> stripe(static_cast<size_t>(rotation_.rows * kLanes));
    for (int64_t r = 0; r < rotation_.rows; ++r) {
      std::memcpy(stripe.data() + r * kLanes, at(r, column), bytes);
    }
    source.turn(rotation_.turn_rows, stripe.data(), rotation_.rows, kLanes);
    for (int64_t r = 0; r < rotation_.rows; ++r) {
      std::memcpy(at(r, column), stripe.data() + r * kLanes, bytes);
    }
  }

  const TensorRotation& rotation_;  // of the source, which outlives this
  std::unique_ptr<float[]> data_;   // [rows, columns]
  SharedWork rows_;
  SharedWork stripes_;
  std::atomic<int64_t> handed_out_{0};
};

RotatedSource::RotatedSource(std::shared_ptr<const TensorSource> source,
                             std::map<std::string, TensorRotation> rotations,
                             std::shared_ptr<const ResidualRotation> residual)
    : source_(std::move(source)), rotations_(std::move(rotations)), residual_(std::move(residual)) {
  for (const auto& [name, rotation] : rotations_) {
    if (rotation.gain.empty()) continue;
    std::vector<float>& gain = gains_[rotation.gain];
    if (!gain.empty()) continue;
    gain.resize(static_cast<size_t>(rotation.columns));
    source_->read_rows(rotation.gain, 0, 1, gain.data());
  }
}

RotatedSource::~RotatedSource() = default;

const TensorRotation* RotatedSource::find(const std::string& tensor) const {
  const auto it = rotations_.find(tensor);
  return it != rotations_.end() ? &it->second : nullptr;
}

std::optional<GroupFormat> RotatedSource::grid(const std::string& tensor) const {
  return find(tensor) != nullptr ? std::nullopt : source_->grid(tensor);
}

void RotatedSource::read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const {
  if (find(tensor) != nullptr) return TensorSource::read_grid_row(tensor, row, out);
  source_->read_grid_row(tensor, row, out);
}

void RotatedSource::read_rows(const std::string& tensor, int64_t row, int64_t count,
                              float* out) const {
  const TensorRotation* rotation = find(tensor);
  if (rotation == nullptr) return source_->read_rows(tensor, row, count, out);
  require(row >= 0 && count >= 0 && row <= rotation->rows && count <= rotation->rows - row,
          ErrorCode::invalid_argument, "tensor {}: {} rows from row {} on asked of {}", tensor,
          count, row, rotation->rows);
  if (rotation->turn_rows.kind == Turn::Kind::none) return read_turned(*rotation, row, count, out);
  const std::shared_ptr<Mixed> whole = mixed(*rotation);
  whole->make(*this);
  if (whole->hand_out(row, count, out)) release(whole.get());
}

/// Rows as they are read, times the gain, their columns turned.
void RotatedSource::read_turned(const TensorRotation& rotation, int64_t row, int64_t count,
                                float* out) const {
  source_->read_rows(rotation.source, row, count, out);
  const std::vector<float>* gain =
      rotation.gain.empty() ? nullptr : &gains_.find(rotation.gain)->second;
  for (int64_t r = 0; r < count; ++r) {
    float* x = out + r * rotation.columns;
    for (int64_t k = 0; gain != nullptr && k < rotation.columns; ++k) {
      x[k] *= (*gain)[static_cast<size_t>(k)];
    }
    turn(rotation.turn_columns, x, rotation.columns, 1);
  }
}

void RotatedSource::turn(const Turn& turn, float* x, int64_t size, int64_t lanes) const {
  switch (turn.kind) {
    case Turn::Kind::none:
      return;
    case Turn::Kind::residual:
      return residual_->apply(x, lanes);
    case Turn::Kind::hadamard:
      return hadamard_blocks(x, size, turn.block, lanes);
  }
}

std::shared_ptr<RotatedSource::Mixed> RotatedSource::mixed(const TensorRotation& rotation) const {
  const std::lock_guard lock(mutex_);
  for (const auto& whole : live_) {
    if (whole->is(rotation)) return whole;
  }
  if (live_.size() == kMostLive) live_.erase(live_.begin());  // its readers keep it alive
  live_.push_back(std::make_shared<Mixed>(rotation));
  return live_.back();
}

void RotatedSource::release(const Mixed* whole) const {
  const std::lock_guard lock(mutex_);
  std::erase_if(live_, [&](const auto& other) { return other.get() == whole; });
}

}  // namespace qllm
