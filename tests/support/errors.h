// Checks of what a call throws.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "qllm/error.hpp"

namespace qllm::test {

/// Checks that `call` throws qllm::Error of that code with `part` in its message, on one line.
inline void check_error(ErrorCode code, const std::string& part,
                        const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    CHECK(message.find(part) != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
    return;
  }
  CAPTURE(part);
  FAIL_CHECK("no error was thrown");
}

}  // namespace qllm::test
