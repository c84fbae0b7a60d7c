// A GPU and what is owned on it: memory, a stream, events, captured graphs.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "cuda_error.h"

namespace qllm::cuda {

struct DeviceInfo {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int64_t total_bytes = 0;
  int driver_version = 0;   // 1000 major + 10 minor, of the newest CUDA that the driver knows
  int runtime_version = 0;  // of the CUDA that this was built with
};

/// The oldest compute capability that the kernels are compiled for: Turing.
inline constexpr int kLeastMajor = 7, kLeastMinor = 5;

/// Throws unsupported, saying what is missing: a driver, a new enough driver, a GPU, a GPU that the
/// kernels run on.
DeviceInfo open_device(int index);

/// Free memory of the device in bytes.
int64_t free_device_bytes();

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void synchronize() const;

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  /// `timing`: times can be taken between two of them.
  explicit Event(bool timing);
  ~Event();
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&&) = delete;
  cudaEvent_t get() const { return event_; }
  void record(const Stream& stream);
  void synchronize() const;
  /// Milliseconds from `begin` to this; both have happened.
  double since_ms(const Event& begin) const;

 private:
  cudaEvent_t event_ = nullptr;
};

/// Memory of the device, aligned to 256 bytes.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// Throws out_of_memory, saying for what: "cuda: 1024 MiB for weights: …".
  DeviceBuffer(int64_t bytes, const char* what);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// Memory of the host that the device copies from and to without a detour (page-locked).
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(int64_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(PinnedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

void copy_to_device(void* to, const void* from, int64_t bytes, const Stream& stream);
void copy_to_host(void* to, const void* from, int64_t bytes, const Stream& stream);
void clear_device(void* to, int64_t bytes, const Stream& stream);

/// Work of a stream, captured once and launched as one.
class CapturedGraph {
 public:
  CapturedGraph() = default;
  /// Calls `work`, which launches on the stream; nothing of it runs yet. Where it throws, the
  /// capture ends and the exception goes on.
  template <class Work>
  static CapturedGraph capture(const Stream& stream, Work work) {
    CapturedGraph graph;
    graph.begin(stream);
    try {
      work();
    } catch (...) {
      graph.abandon(stream);
      throw;
    }
    graph.end(stream);
    return graph;
  }
  ~CapturedGraph();
  CapturedGraph(CapturedGraph&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}
  CapturedGraph& operator=(CapturedGraph&&) = delete;
  void launch(const Stream& stream) const;

 private:
  static void begin(const Stream& stream);
  static void abandon(const Stream& stream) noexcept;
  void end(const Stream& stream);

  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace qllm::cuda
