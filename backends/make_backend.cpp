// The only place that names all backends.
#include "backend/backend.h"
#include "core/error.h"
#include "cpu/cpu_backend.h"
#include "reference/reference_backend.h"

namespace qllm {

std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options) {
  if (name == "cpu" || name == "auto" || name.empty()) return cpu::make_backend(options);
  if (name == "reference") return reference::make_backend(options);
  require(name != "cuda", ErrorCode::unsupported,
          "device cuda: this build has no CUDA backend; use cpu, reference or auto");
  fail(ErrorCode::invalid_argument, "device {}: known devices are cpu, reference and auto", name);
}

}  // namespace qllm
