// Errors of the C++ API: one exception type that names the thing, what was expected and what was
// found.
#pragma once

#include <stdexcept>
#include <string>

#if defined(_WIN32)
#define QLLM_API
#else
#define QLLM_API __attribute__((visibility("default")))
#endif

namespace qllm {

/// What went wrong, coarse enough to branch on. The values are stable: the C API returns them.
enum class ErrorCode : int {
  ok = 0,
  invalid_argument = 1,  ///< a parameter of the call is out of range
  not_found = 2,         ///< no such file, tensor, device or tier
  io = 3,                ///< reading or writing failed
  bad_format = 4,        ///< a file's content breaks its format
  unsupported = 5,       ///< well-formed, but outside what this build or machine does
  out_of_memory = 6,     ///< an allocation was refused
  context_full = 7,      ///< the KV cache has no room left
  cancelled = 8,         ///< the caller asked to stop
  internal = 9,          ///< a defect of the library
};

/// The one exception that leaves the library. `what()` is one line without a trailing newline.
class QLLM_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace qllm
