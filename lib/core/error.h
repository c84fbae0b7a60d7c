// Throwing helpers: `fail(ErrorCode::io, "{}: cannot open: {}", path, why)`.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "qllm/error.hpp"

namespace qllm {

/// Throws Error with a message formatted by fmt.
template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error{code} unless `ok`.
template <typename... Args>
void require(bool ok, ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qllm
