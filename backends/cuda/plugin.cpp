// What libqllm_cuda.so exports.
#include "backend/device_plugin.h"
#include "cuda_backend.h"

extern "C" __attribute__((visibility("default"))) const qllm::DevicePlugin* qllm_device_plugin() {
  static const qllm::DevicePlugin plugin{qllm::device_plugin_build(),
                                         [](const qllm::BackendOptions& options) -> qllm::Backend* {
                                           return qllm::cuda::make_backend(options).release();
                                         }};
  return &plugin;
}
