// The only place that names all backends.
#include "backend/backend.h"
#include "core/error.h"

namespace qllm {

std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options) {
  static_cast<void>(options);
  fail(ErrorCode::unsupported, "device {}: known devices are cpu, reference and auto", name);
}

}  // namespace qllm
