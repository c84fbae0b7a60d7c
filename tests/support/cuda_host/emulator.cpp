#include "emulator.h"

#include <algorithm>
#include <atomic>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace qllm::cuda_host {
namespace {

namespace ctx = boost::context;

constexpr size_t kStackBytes = size_t{64} << 10;
constexpr int kMaxThreads = 1024;

std::atomic<uint64_t> g_order{0};
std::atomic<int64_t> g_kernels{0};

enum class State : uint8_t { ready, at_block, at_warp, done };

struct Job {
  const Shape* shape = nullptr;
  const std::function<void()>* body = nullptr;
};

class BlockRunner;
thread_local BlockRunner* t_runner = nullptr;

/// One thread of a block; its fiber lives on from block to block.
struct Lane {
  ctx::fiber fiber;
  State state = State::done;
  ThreadPlace place;
  void* args = nullptr;
  void (*run)(void* const*) = nullptr;
};

std::vector<int> turns(int n, uint64_t order, uint64_t salt) {
  std::vector<int> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  if (order == 1) std::reverse(out.begin(), out.end());
  if (order > 1) {
    std::mt19937_64 random(order * 1000003U + salt);
    std::shuffle(out.begin(), out.end(), random);
  }
  return out;
}

/// Runs blocks one after the other on one host thread.
class BlockRunner {
 public:
  void run(const Job& job, Index3 block) {
    job_ = job;
    const Index3 size = job.shape->block;
    n_ = static_cast<int>(size.x * size.y * size.z);
    shared_.assign(std::max<size_t>(job.shape->shared_bytes, 1), std::byte{0xCD});
    prepare_lanes();
    for (int i = 0; i < n_; ++i) place_lane(i, block);
    const uint64_t order = g_order;
    const std::vector<int> warps = turns((n_ + kWarpSize - 1) / kWarpSize, order, block.x);
    const std::vector<int> lanes = turns(kWarpSize, order, block.x + 1);
    while (step(warps, lanes)) {
    }
  }

  Lane& current() { return *lanes_[static_cast<size_t>(current_)]; }
  void yield() { scheduler_ = std::move(scheduler_).resume(); }
  std::byte* shared(size_t bytes) {
    if (bytes > job_.shape->shared_bytes) {
      throw std::runtime_error("asks for " + std::to_string(bytes) + " bytes of shared memory of " +
                               std::to_string(job_.shape->shared_bytes));
    }
    return shared_.data();
  }

 private:
  void prepare_lanes() {
    while (static_cast<int>(lanes_.size()) < n_) lanes_.push_back(std::make_unique<Lane>());
  }

  void place_lane(int i, Index3 block) {
    const Index3 size = job_.shape->block;
    const auto u = static_cast<unsigned>(i);
    Lane& lane = *lanes_[static_cast<size_t>(i)];
    lane.place = {
        {u % size.x, u / size.x % size.y, u / (size.x * size.y)}, block, size, job_.shape->grid};
    lane.state = State::ready;
  }

  void resume(int i) {
    Lane& lane = *lanes_[static_cast<size_t>(i)];
    current_ = i;
    if (!lane.fiber) {
      lane.fiber = ctx::fiber(std::allocator_arg, ctx::protected_fixedsize_stack(kStackBytes),
                              [this](ctx::fiber&& scheduler) {
                                scheduler_ = std::move(scheduler);
                                for (;;) run_body();
                                return std::move(scheduler_);
                              });
    }
    lane.fiber = std::move(lane.fiber).resume();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  void run_body() {
    try {
      (*job_.body)();
    } catch (...) {
      error_ = std::current_exception();
    }
    current().state = State::done;
    yield();
  }

  /// Gives every thread that can go on a turn. False once all have ended.
  bool step(const std::vector<int>& warps, const std::vector<int>& lanes) {
    bool progress = false;
    for (const int w : warps) {
      while (run_warp(w, lanes)) progress = true;
    }
    if (std::all_of(lanes_.begin(), lanes_.begin() + n_,
                    [](const auto& l) { return l->state == State::done; })) {
      return false;
    }
    const bool all_met = std::all_of(lanes_.begin(), lanes_.begin() + n_,
                                     [](const auto& l) { return l->state == State::at_block; });
    if (all_met) {
      for (int i = 0; i < n_; ++i) lanes_[static_cast<size_t>(i)]->state = State::ready;
      return true;
    }
    if (!progress) stuck();
    return true;
  }

  /// All lanes of a warp that can go on do; then the warp meets, where it may.
  bool run_warp(int w, const std::vector<int>& order) {
    bool ran = false;
    const int begin = w * kWarpSize, end = std::min(n_, begin + kWarpSize);
    for (const int l : order) {
      if (begin + l >= end || lanes_[static_cast<size_t>(begin + l)]->state != State::ready)
        continue;
      resume(begin + l);
      ran = true;
    }
    return meet(begin, end) || ran;
  }

  bool meet(int begin, int end) {
    void* args[kWarpSize] = {};
    for (int i = begin; i < end; ++i) {
      Lane& lane = *lanes_[static_cast<size_t>(i)];
      if (lane.state != State::at_warp) return false;
      if (lane.run != lanes_[static_cast<size_t>(begin)]->run) {
        throw std::runtime_error("lanes of a warp meet at different operations");
      }
      args[i - begin] = lane.args;
    }
    lanes_[static_cast<size_t>(begin)]->run(args);
    for (int i = begin; i < end; ++i) lanes_[static_cast<size_t>(i)]->state = State::ready;
    return true;
  }

  [[noreturn]] void stuck() const {
    int block = 0, warp = 0, done = 0;
    for (int i = 0; i < n_; ++i) {
      const State s = lanes_[static_cast<size_t>(i)]->state;
      block += s == State::at_block ? 1 : 0;
      warp += s == State::at_warp ? 1 : 0;
      done += s == State::done ? 1 : 0;
    }
    throw std::runtime_error("threads wait for each other: " + std::to_string(block) +
                             " at a block barrier, " + std::to_string(warp) +
                             " at a warp operation, " + std::to_string(done) + " ended");
  }

  Job job_;
  int n_ = 0;
  int current_ = 0;
  std::vector<std::unique_ptr<Lane>> lanes_;
  ctx::fiber scheduler_;
  std::vector<std::byte> shared_;
  std::exception_ptr error_;
};

void check_shape(const Shape& s) {
  const uint64_t threads = uint64_t{s.block.x} * s.block.y * s.block.z;
  const uint64_t blocks = uint64_t{s.grid.x} * s.grid.y * s.grid.z;
  if (threads == 0 || threads > kMaxThreads || threads % kWarpSize != 0 || blocks == 0 ||
      s.grid.x > 0x7fffffffU || s.grid.y > 65535 || s.grid.z > 65535 ||
      s.shared_bytes > size_t{227} << 10U) {
    throw std::runtime_error("a launch of " + std::to_string(blocks) + " blocks of " +
                             std::to_string(threads) + " threads with " +
                             std::to_string(s.shared_bytes) + " bytes of shared memory");
  }
}

/// Blocks are handed out one by one.
struct Blocks {
  const Job& job;
  std::vector<int> order;
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;

  void work() {
    // A runner whose block failed has fibers that hang in the middle of it: it is not used again.
    static thread_local std::unique_ptr<BlockRunner> runner;
    if (!runner) runner = std::make_unique<BlockRunner>();
    t_runner = runner.get();
    const Index3 grid = job.shape->grid;
    try {
      for (size_t i = next++; i < order.size(); i = next++) {
        const auto b = static_cast<unsigned>(order[i]);
        runner->run(job, {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)});
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = order.size();
      runner.release();  // its fibers cannot be unwound
    }
    t_runner = nullptr;
  }
};

}  // namespace

const ThreadPlace& place() { return t_runner->current().place; }

void block_barrier() {
  t_runner->current().state = State::at_block;
  t_runner->yield();
}

void warp_collective(void* args, void (*run)(void* const* args)) {
  Lane& lane = t_runner->current();
  lane.args = args;
  lane.run = run;
  lane.state = State::at_warp;
  t_runner->yield();
}

std::byte* shared_memory(size_t bytes_needed) { return t_runner->shared(bytes_needed); }

void run_kernel(const char* name, const Shape& shape, const std::function<void()>& body) {
  ++g_kernels;
  try {
    check_shape(shape);
    const Job job{&shape, &body};
    const int count = static_cast<int>(shape.grid.x * shape.grid.y * shape.grid.z);
    Blocks blocks{job, turns(count, g_order, 7), {}, {}, {}};
#pragma omp parallel num_threads(count >= 4 ? 2 : 1)
    blocks.work();
    if (blocks.error) std::rethrow_exception(blocks.error);
  } catch (const std::exception& e) {
    throw std::runtime_error(std::string("kernel ") + name + ": " + e.what());
  }
}

void set_order(uint64_t order) { g_order = order; }

uint64_t order() { return g_order; }

int64_t kernels_run() { return g_kernels.load(); }

}  // namespace qllm::cuda_host
