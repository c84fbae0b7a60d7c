#include "cuda_device.h"

#include "core/error.h"

namespace qllm::cuda {
namespace {

std::string version(int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); }

/// How many GPUs there are, or why that cannot be told.
int device_count(int driver, int runtime) {
  require(driver != 0, ErrorCode::unsupported,
          "device cuda: no NVIDIA driver was found (libcuda.so.1)");
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  require(
      error != cudaErrorInsufficientDriver, ErrorCode::unsupported,
      "device cuda: the NVIDIA driver knows CUDA up to {}, this was built with CUDA {}: a newer "
      "driver is needed",
      version(driver), version(runtime));
  require(error != cudaErrorNoDevice && (error != cudaSuccess || count > 0), ErrorCode::unsupported,
          "device cuda: the driver finds no GPU");
  require(error == cudaSuccess, ErrorCode::unsupported, "device cuda: {}",
          cudaGetErrorString(error));
  return count;
}

}  // namespace

DeviceInfo open_device(int index) {
  DeviceInfo info;
  info.index = index;
  check(cudaRuntimeGetVersion(&info.runtime_version), "runtime version");
  if (cudaDriverGetVersion(&info.driver_version) != cudaSuccess) info.driver_version = 0;
  const int count = device_count(info.driver_version, info.runtime_version);
  require(index >= 0 && index < count, ErrorCode::invalid_argument, "device cuda: GPU {} of {}",
          index, count);
  check(cudaSetDevice(index), "cudaSetDevice");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  info.name = properties.name;
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  const bool new_enough =
      info.major > kLeastMajor || (info.major == kLeastMajor && info.minor >= kLeastMinor);
  require(new_enough, ErrorCode::unsupported,
          "device cuda: {} has compute capability {}.{}, {}.{} is the least that runs", info.name,
          info.major, info.minor, kLeastMajor, kLeastMinor);
  return info;
}

int64_t free_device_bytes() {
  size_t free_bytes = 0, total = 0;
  check(cudaMemGetInfo(&free_bytes, &total), "cudaMemGetInfo");
  return static_cast<int64_t>(free_bytes);
}

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}
Stream::~Stream() { cudaStreamDestroy(stream_); }
void Stream::synchronize() const { check(cudaStreamSynchronize(stream_), "a kernel or a copy"); }

Event::Event(bool timing) {
  check(cudaEventCreateWithFlags(&event_, timing ? cudaEventDefault : cudaEventDisableTiming),
        "cudaEventCreate");
}
Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}
void Event::record(const Stream& stream) {
  check(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
}
void Event::synchronize() const { check(cudaEventSynchronize(event_), "a kernel or a copy"); }
double Event::since_ms(const Event& begin) const {
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin.event_, event_), "cudaEventElapsedTime");
  return ms;
}

DeviceBuffer::DeviceBuffer(int64_t bytes, const char* what) : bytes_(bytes) {
  const cudaError_t error = cudaMalloc(&data_, static_cast<size_t>(bytes > 0 ? bytes : 1));
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // a failed allocation is no fault of later calls
  require(error != cudaErrorMemoryAllocation, ErrorCode::out_of_memory,
          "device cuda: no memory for {} bytes of {}, {} MiB are free", bytes, what,
          free_device_bytes() >> 20);
  check(error, "cudaMalloc");
}
DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

PinnedBuffer::PinnedBuffer(int64_t bytes) : bytes_(bytes) {
  const cudaError_t error =
      cudaHostAlloc(&data_, static_cast<size_t>(bytes > 0 ? bytes : 1), cudaHostAllocDefault);
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  fail(ErrorCode::out_of_memory, "device cuda: {} bytes of page-locked memory: {}", bytes,
       cudaGetErrorString(error));
}
PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

void copy_to_device(void* to, const void* from, int64_t bytes, const Stream& stream) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream.get()),
        "a copy to the device");
}
void copy_to_host(void* to, const void* from, int64_t bytes, const Stream& stream) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream.get()),
        "a copy from the device");
}
void clear_device(void* to, int64_t bytes, const Stream& stream) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream.get()), "cudaMemset");
}

CapturedGraph::~CapturedGraph() {
  if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
}
void CapturedGraph::begin(const Stream& stream) {
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
}
void CapturedGraph::abandon(const Stream& stream) noexcept {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(stream.get(), &graph) == cudaSuccess && graph != nullptr) {
    cudaGraphDestroy(graph);
  }
}
void CapturedGraph::end(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
  const cudaError_t error = cudaGraphInstantiate(&exec_, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "cudaGraphInstantiate");
}
void CapturedGraph::launch(const Stream& stream) const {
  check(cudaGraphLaunch(exec_, stream.get()), "cudaGraphLaunch");
}

}  // namespace qllm::cuda
