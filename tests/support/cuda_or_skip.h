// The CUDA backend for tests that want one, or a line that says why there is none.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "backend/device_plugin.h"
#include "core/error.h"

namespace qllm::test {

inline std::unique_ptr<Backend> make_cuda(const BackendOptions& options) {
  return std::unique_ptr<Backend>(load_device_plugin("cuda").make(options));
}

/// False, and said so, where no GPU can be used.
inline bool cuda_or_skip() {
  try {
    make_cuda({});
    return true;
  } catch (const Error& e) {
    if (e.code() != ErrorCode::unsupported) throw;
    MESSAGE("[skipped] cuda: ", std::string(e.what()));
    return false;
  }
}

}  // namespace qllm::test
