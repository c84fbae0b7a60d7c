#include "runtime.h"

#include <chrono>
#include <cstdlib>
#include <exception>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "devices.h"

using Clock = std::chrono::steady_clock;

struct EmulatedGraph {
  std::vector<std::function<void()>> work;
};
struct EmulatedStream {
  int device = 0;
  bool capturing = false;
  EmulatedGraph captured;
};
struct EmulatedEvent {
  Clock::time_point at;
};

namespace qllm::cuda_host {
namespace {

Device first_device() {
  Device device;
  const char* set = std::getenv("QLLM_EMULATED_GPU");
  const std::string wish = set != nullptr ? set : "";
  if (wish == "no-driver") device.driver = false;
  if (wish == "no-gpu") device.count = 0;
  if (wish.starts_with("gpus=")) device.count = std::stoi(wish.substr(5));
  if (wish.starts_with("bytes=")) device.total_bytes = std::stoll(wish.substr(6));
  return device;
}

struct Allocation {
  size_t bytes = 0;
  int device = 0;
};

struct State {
  std::mutex mutex;
  Device device = first_device();
  std::map<const std::byte*, Allocation> allocations;
  std::map<int, int64_t> allocated;  // by device
  std::map<int, int64_t> enqueued;
  GraphCounters graphs;
  cudaError_t error = cudaSuccess;  // stays, as a device's does
  std::string failure;
};
State& state() {
  static State s;
  return s;
}

/// Of the calling thread.
int& current_device() {
  static thread_local int device = 0;
  return device;
}

cudaError_t sticky() { return state().error; }

void run_now(const std::function<void()>& work) {
  if (state().error != cudaSuccess) return;
  try {
    work();
  } catch (const std::exception& e) {
    state().failure = e.what();
    state().error = cudaErrorLaunchFailure;
  }
}

}  // namespace

Device& device() { return state().device; }
int64_t allocated_bytes() {
  int64_t bytes = 0;
  for (const auto& [device, allocated] : state().allocated) bytes += allocated;
  return bytes;
}
int64_t allocated_bytes(int device) { return state().allocated[device]; }
int64_t enqueued(int device) { return state().enqueued[device]; }
GraphCounters graph_counters() { return state().graphs; }
const char* last_failure() { return state().failure.c_str(); }

int owner_of(const void* p) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto* const at = static_cast<const std::byte*>(p);
  auto behind = s.allocations.upper_bound(at);
  if (behind == s.allocations.begin()) return -1;
  const auto& [begin, allocation] = *--behind;
  return at < begin + allocation.bytes ? allocation.device : -1;
}

int device_of(cudaStream_t stream) { return stream != nullptr ? stream->device : 0; }

void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream != nullptr && stream->device != current_device()) {
    return run_now([=] {
      throw std::runtime_error("a stream of device " + std::to_string(stream->device) +
                               " is used on device " + std::to_string(current_device()));
    });
  }
  {
    const std::lock_guard lock(state().mutex);
    ++state().enqueued[device_of(stream)];
  }
  if (stream != nullptr && stream->capturing) {
    stream->captured.work.push_back(std::move(work));
  } else {
    run_now(work);
  }
}

}  // namespace qllm::cuda_host

using namespace qllm::cuda_host;  // NOLINT

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorLaunchFailure:
      return state().failure.c_str();
  }
  return "unknown";
}
const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaGetLastError() { return sticky(); }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = device().driver ? 13000 : 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (!device().driver) return cudaErrorInsufficientDriver;
  if (device().count == 0) return cudaErrorNoDevice;
  *count = device().count;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) {
  if (d < 0 || d >= device().count) return cudaErrorInvalidDevice;
  current_device() = d;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int /*device*/) {
  *prop = {};
  std::strcpy(prop->name, "emulated device");
  prop->totalGlobalMem = static_cast<size_t>(device().total_bytes);
  prop->major = device().major;
  prop->minor = device().minor;
  prop->multiProcessorCount = device().multiprocessors;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int /*device*/) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = device().multiprocessors;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = device().major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = device().minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = device().major >= 9 ? 227 << 10 : (device().major == 8 ? 99 << 10 : 64 << 10);
      break;
    case cudaDevAttrL2CacheSize:
      *value = 4 << 20;
      break;
  }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = static_cast<size_t>(device().total_bytes);
  *free_bytes = *total_bytes - static_cast<size_t>(allocated_bytes(current_device()));
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (s.device.fail_allocation >= 0 && s.device.fail_allocation-- == 0) {
    return cudaErrorMemoryAllocation;
  }
  int64_t& allocated = s.allocated[current_device()];
  if (allocated + static_cast<int64_t>(bytes) > s.device.total_bytes) {
    return cudaErrorMemoryAllocation;
  }
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xCD, bytes);  // memory of a device is not zero
  s.allocations[static_cast<std::byte*>(*p)] = {bytes, current_device()};
  allocated += static_cast<int64_t>(bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto found = s.allocations.find(static_cast<std::byte*>(p));
  if (found == s.allocations.end()) return cudaErrorInvalidValue;
  s.allocated[found->second.device] -= static_cast<int64_t>(found->second.bytes);
  s.allocations.erase(found);
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned /*flags*/) {
  *p = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  return *p != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind /*kind*/,
                            cudaStream_t stream) {
  enqueue(stream, [=] {
    for (const void* p : {static_cast<const void*>(to), from}) {
      const int owner = owner_of(p);
      if (stream != nullptr && owner >= 0 && owner != stream->device) {
        throw std::runtime_error("a copy on device " + std::to_string(stream->device) +
                                 " of memory of device " + std::to_string(owner));
      }
    }
    std::memcpy(to, from, bytes);
  });
  return sticky();
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] { std::memset(p, value, bytes); });
  return sticky();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  *stream = new EmulatedStream;
  (*stream)->device = current_device();
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t /*stream*/) { return sticky(); }
cudaError_t cudaDeviceSynchronize() { return sticky(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t /*stream*/, cudaEvent_t /*event*/,
                                unsigned /*flags*/) {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  enqueue(stream, [=] { event->at = Clock::now(); });
  return sticky();
}
cudaError_t cudaEventSynchronize(cudaEvent_t /*event*/) { return sticky(); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(end->at - begin->at).count();
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode /*mode*/) {
  if (stream == nullptr || stream->capturing) return cudaErrorInvalidValue;
  stream->capturing = true;
  stream->captured = {};
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->capturing) return cudaErrorInvalidValue;
  stream->capturing = false;
  *graph = new EmulatedGraph(std::move(stream->captured));
  ++state().graphs.captured;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long /*flags*/) {
  *exec = new EmulatedGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t /*stream*/) {
  ++state().graphs.launched;
  for (const auto& work : exec->work) run_now(work);
  return sticky();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
