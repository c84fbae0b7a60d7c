// The only place that names all backends.
#include <utility>

#include "backend/backend.h"
#include "backend/device_plugin.h"
#include "core/error.h"
#include "cpu/cpu_backend.h"
#include "hybrid/hybrid_backend.h"
#include "reference/reference_backend.h"

namespace qllm {
namespace {

/// Layers for a GPU, where there is none.
void refuse_gpu_layers(const std::string& device, const BackendOptions& options) {
  if (options.gpu_layers <= 0) return;
  const std::string message =
      fmt::format("{} layers asked for a GPU: device {} has none", options.gpu_layers, device);
  require(device == "auto", ErrorCode::invalid_argument, "{}", message);
  if (options.log) options.log(LogLevel::warning, message + "; the cpu takes all");
}

/// The GPU's backend is loaded at run time: this program may run where there is none.
std::unique_ptr<Backend> make_cuda(const BackendOptions& options) {
  return std::unique_ptr<Backend>(load_device_plugin("cuda").make(options));
}

std::unique_ptr<Backend> make_one(const std::string& name, const BackendOptions& options) {
  if (name == "cpu") return cpu::make_backend(options);
  if (name == "cuda") return make_cuda(options);
  if (name == "reference") return reference::make_backend(options);
  fail(ErrorCode::invalid_argument, "device {}: known devices are cpu, cuda, reference and auto",
       name);
}

/// Null where no GPU can be used.
std::unique_ptr<Backend> find_gpu(const BackendOptions& options) {
  try {
    return make_cuda(options);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::unsupported && e.code() != ErrorCode::out_of_memory) throw;
    if (options.log) options.log(LogLevel::debug, fmt::format("{}; the cpu is used", e.what()));
    return nullptr;
  }
}

/// The cpu takes the layers that the GPU has no room for, or is not to have.
std::unique_ptr<Backend> share_with_cpu(std::unique_ptr<Backend> gpu,
                                        const BackendOptions& options) {
  return hybrid::make_backend(cpu::make_backend(options), std::move(gpu), options);
}

/// A GPU where there is one that can be used, else the cpu.
std::unique_ptr<Backend> make_best(const BackendOptions& options) {
  if (auto gpu = find_gpu(options)) return share_with_cpu(std::move(gpu), options);
  refuse_gpu_layers("auto", options);
  return cpu::make_backend(options);
}

}  // namespace

std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options) {
  if (const size_t plus = name.find('+'); plus != std::string::npos) {
    return hybrid::make_backend(make_one(name.substr(0, plus), options),
                                make_one(name.substr(plus + 1), options), options);
  }
  if (name.empty() || name == "auto") return make_best(options);
  if (name == "cuda") return share_with_cpu(make_cuda(options), options);
  refuse_gpu_layers(name, options);
  return make_one(name, options);
}

}  // namespace qllm
