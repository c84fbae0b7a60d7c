// Log and progress callbacks. The library never prints: whoever opens it may listen.
#pragma once

#include <functional>
#include <string_view>

namespace qllm {

enum class LogLevel : int { debug = 0, info = 1, warning = 2, error = 3 };

/// Receives one line without a newline. May be empty. Called from the thread that opens or runs.
using LogFn = std::function<void(LogLevel, std::string_view)>;

/// Receives a stage ("loading", …) and a fraction in [0, 1]; returning false cancels with
/// ErrorCode::cancelled. May be empty.
using ProgressFn = std::function<bool(std::string_view stage, double fraction)>;

}  // namespace qllm
