// The emulated device behind cuda_runtime.h: what tests set and ask.
#pragma once

#include <cstdint>
#include <functional>

#include "cuda_host/cuda_runtime.h"

namespace qllm::cuda_host {

/// The device that the emulation plays; tests change it before they make a backend. The variable
/// QLLM_EMULATED_GPU sets it at the start: "no-driver", "no-gpu" or "bytes=N" of memory.
struct Device {
  int count = 1;
  int major = 9, minor = 0;
  int multiprocessors = 4;  // few, so that choices that depend on it are made both ways
  int64_t total_bytes = int64_t{8} << 30;
  int fail_allocation = -1;  // so many more succeed, then one fails; -1: none fails
  bool driver = true;
};
Device& device();

/// Bytes allocated on the device now; 0 after a test, or something leaks.
int64_t allocated_bytes();

struct GraphCounters {
  int64_t captured = 0;
  int64_t launched = 0;
};
GraphCounters graph_counters();

/// Enqueues `work` on a stream: runs it now, or keeps it while the stream is captured. An exception
/// of it is the stream's error, which later calls return, as a fault in a kernel is.
void enqueue(cudaStream_t stream, std::function<void()> work);

/// What the last failed kernel said; empty: none failed.
const char* last_failure();

}  // namespace qllm::cuda_host
