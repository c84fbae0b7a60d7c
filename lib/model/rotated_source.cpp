#include "model/rotated_source.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "core/error.h"
#include "core/math.h"

namespace qllm {
namespace {

constexpr size_t kMostLive = 2;    // float32 tensors held at a time
constexpr int64_t kRowChunk = 16;  // rows that a thread reads at a time
constexpr int64_t kLanes = 16;     // columns that are turned at a time: two lines of each row

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
  /// `memory` holds rows x columns values or more.
  Mixed(const RotatedSource& source, const TensorRotation& rotation, Memory memory)
      : source_(source),
        rotation_(rotation),
        data_(std::move(memory)),
        rows_(ceil_div(rotation.rows, kRowChunk)),
        stripes_(ceil_div(rotation.columns, kLanes)) {}

  ~Mixed() { source_.give_back(std::move(data_)); }
  Mixed(const Mixed&) = delete;
  Mixed& operator=(const Mixed&) = delete;

  bool is(const TensorRotation& rotation) const { return &rotation == &rotation_; }

  void make() {
    if (made_.load(std::memory_order_acquire)) return;
    rows_.help([&](int64_t i) {
      const int64_t row = i * kRowChunk;
      source_.read_turned(rotation_, row, std::min(kRowChunk, rotation_.rows - row), at(row, 0));
    });
    std::vector<float> stripe(static_cast<size_t>(rotation_.rows * kLanes));
    stripes_.help([&](int64_t i) { turn_stripe(i * kLanes, stripe.data()); });
    made_.store(true, std::memory_order_release);
  }

  /// Whether all rows are out with these.
  bool hand_out(int64_t row, int64_t count, float* out) {
    std::copy(at(row, 0), at(row + count, 0), out);
    return (handed_out_ += count) >= rotation_.rows;
  }

 private:
  float* at(int64_t row, int64_t column) { return data_.get() + row * rotation_.columns + column; }

  /// `stripe`: scratch [rows, kLanes].
  void turn_stripe(int64_t column, float* stripe) {
    const int64_t count = std::min(kLanes, rotation_.columns - column);
    for (int64_t r = 0; r < rotation_.rows; ++r) copy(at(r, column), count, stripe + r * kLanes);
    source_.turn(rotation_.turn_rows, stripe, rotation_.rows, kLanes);
    for (int64_t r = 0; r < rotation_.rows; ++r) copy(stripe + r * kLanes, count, at(r, column));
  }

  /// Mostly whole lines: then without a call.
  static void copy(const float* from, int64_t count, float* to) {
    if (count == kLanes) {
      std::memcpy(to, from, kLanes * sizeof(float));
    } else {
      std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    }
  }

  const RotatedSource& source_;  // outlives this
  const TensorRotation& rotation_;
  Memory data_;  // [rows, columns]
  SharedWork rows_;
  SharedWork stripes_;
  std::atomic<bool> made_{false};
  std::atomic<int64_t> handed_out_{0};
};

RotatedSource::RotatedSource(std::shared_ptr<const TensorSource> source,
                             std::map<std::string, TensorRotation> rotations,
                             std::shared_ptr<const ResidualRotation> residual)
    : source_(std::move(source)), rotations_(std::move(rotations)), residual_(std::move(residual)) {
  for (const auto& [name, rotation] : rotations_) {
    if (rotation.turn_rows.kind != Turn::Kind::none) {
      most_mixed_ = std::max(most_mixed_, static_cast<size_t>(rotation.rows * rotation.columns));
      ++to_come_;
    }
    if (rotation.gain.empty()) continue;
    require(rotation.turn_columns.kind == Turn::Kind::residual, ErrorCode::internal,
            "tensor {}: a gain without the residual's rotation", name);
    std::vector<float>& factor = factors_[rotation.gain];
    if (!factor.empty()) continue;
    std::vector<float> gain(static_cast<size_t>(rotation.columns));
    source_->read_rows(rotation.gain, 0, 1, gain.data());
    factor = residual_->factor(gain);
  }
}

RotatedSource::~RotatedSource() {
  to_come_ = 0;
  std::vector<std::shared_ptr<Mixed>>().swap(live_);  // they give memory back to a whole object
}

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
  whole->make();
  if (whole->hand_out(row, count, out)) release(whole.get());
}

/// Rows as they are read, times the gain, their columns turned. One at a time: a row stays in the
/// first cache.
void RotatedSource::read_turned(const TensorRotation& rotation, int64_t row, int64_t count,
                                float* out) const {
  const auto factor = factors_.find(rotation.gain);
  for (int64_t r = 0; r < count; ++r) {
    float* x = out + r * rotation.columns;
    source_->read_rows(rotation.source, row + r, 1, x);
    if (factor != factors_.end()) {
      residual_->apply(x, factor->second.data());
    } else {
      turn(rotation.turn_columns, x, rotation.columns, 1);
    }
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

// A Mixed gives its memory back when it dies, and needs the mutex for that: it dies outside of it.

std::shared_ptr<RotatedSource::Mixed> RotatedSource::mixed(const TensorRotation& rotation) const {
  std::shared_ptr<Mixed> dropped;
  const std::lock_guard lock(mutex_);
  for (const auto& whole : live_) {
    if (whole->is(rotation)) return whole;
  }
  if (live_.size() == kMostLive) {
    dropped = std::move(live_.front());  // its readers keep it alive
    live_.erase(live_.begin());
  }
  Memory memory;
  if (!free_.empty()) {
    memory = std::move(free_.back());
    free_.pop_back();
  } else {
    memory = allocate(most_mixed_);
  }
  live_.push_back(std::make_shared<Mixed>(*this, rotation, std::move(memory)));
  return live_.back();
}

/// On large pages where the system gives them: columns of a wide tensor touch a page a row, so with
/// small pages every access would miss the TLB.
RotatedSource::Memory RotatedSource::allocate(size_t values) {
  constexpr size_t kLargePage = size_t{2} << 20;
  const size_t bytes = (values * sizeof(float) + kLargePage - 1) / kLargePage * kLargePage;
  Memory memory(static_cast<float*>(std::aligned_alloc(kLargePage, bytes)));
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory.get(), bytes, MADV_HUGEPAGE);  // a wish: what comes of it does not matter
  return memory;
}

void RotatedSource::release(const Mixed* whole) const {
  std::shared_ptr<Mixed> dropped;
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(live_.begin(), live_.end(),
                               [&](const auto& other) { return other.get() == whole; });
  if (it == live_.end()) return;
  dropped = std::move(*it);
  live_.erase(it);
  if (to_come_ > 0 && --to_come_ == 0) free_.clear();
}

void RotatedSource::give_back(Memory memory) const {
  const std::lock_guard lock(mutex_);
  if (to_come_ > 0 && free_.size() < kMostLive) free_.push_back(std::move(memory));
}

}  // namespace qllm
