// Work of the host on all its threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

namespace qllm::cuda {

/// Calls f(i) for [0, count) from several threads; the first exception goes on once all have
/// stopped.
template <class F>
void in_parallel(int64_t count, F f) {
  std::exception_ptr error;
  std::mutex mutex;
  std::atomic<bool> stop{false};
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; ++i) {
    if (stop) continue;
    try {
      f(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      stop = true;
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace qllm::cuda
