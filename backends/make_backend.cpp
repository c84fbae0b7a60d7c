// The only place that names all backends.
#include "backend/backend.h"
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

std::unique_ptr<Backend> make_one(const std::string& name, const BackendOptions& options) {
  if (name == "cpu" || name == "auto") return cpu::make_backend(options);
  if (name == "reference") return reference::make_backend(options);
  require(name != "cuda", ErrorCode::unsupported,
          "device cuda: this build has no CUDA backend; use cpu, reference or auto");
  fail(ErrorCode::invalid_argument, "device {}: known devices are cpu, reference and auto", name);
}

}  // namespace

std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options) {
  if (const size_t plus = name.find('+'); plus != std::string::npos) {
    return hybrid::make_backend(make_one(name.substr(0, plus), options),
                                make_one(name.substr(plus + 1), options), options);
  }
  const std::string device = name.empty() ? "auto" : name;
  refuse_gpu_layers(device, options);
  return make_one(device, options);
}

}  // namespace qllm
