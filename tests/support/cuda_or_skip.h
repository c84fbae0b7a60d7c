// The CUDA backend for tests that want one, or a line that says why there is none.
#pragma once

#include <doctest/doctest.h>

#include <memory>

#include "backend/device_plugin.h"
#include "core/error.h"

namespace qllm::test {

/// Null, and said so, where no GPU can be used.
inline std::unique_ptr<Backend> cuda_or_skip(const BackendOptions& options) {
  try {
    return std::unique_ptr<Backend>(load_device_plugin("cuda").make(options));
  } catch (const Error& e) {
    if (e.code() != ErrorCode::unsupported) throw;
    MESSAGE("[skipped] cuda: ", e.what());
    return nullptr;
  }
}

}  // namespace qllm::test
