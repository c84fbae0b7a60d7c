#include "qllm/qllm.hpp"

namespace qllm {

std::string version() { return QLLM_VERSION; }

}  // namespace qllm
