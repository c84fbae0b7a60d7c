// Standard output and error: checked writes, what is a terminal, a progress bar.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace qllm::app {

/// Thrown when whoever read our output has gone: the program ends quietly with status 0.
struct ClosedPipe {};

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();

/// Keeps files opened later from taking the numbers of closed standard streams, and turns SIGPIPE
/// into a failed write.
void prepare_standard_streams();

/// Writes all of `text` at once, unbuffered. Throws ClosedPipe, or Error (io) for a full disk.
void write_stdout(std::string_view text);

/// Writes a message; failure is ignored, for there is nowhere left to report it.
void write_stderr(std::string_view text) noexcept;

/// "qllm: error: MESSAGE", in red on a terminal unless NO_COLOR is set or TERM is dumb.
void report_error(std::string_view message) noexcept;

/// A line on standard error that is redrawn in place. Draws nothing where that is no terminal.
class ProgressBar {
 public:
  explicit ProgressBar(bool enabled);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// `fraction` in [0, 1]. Redraws at most ten times a second, with the time left once it is known.
  void update(std::string_view stage, double fraction);
  /// Takes the line away.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool enabled_;
  std::string stage_;
  size_t drawn_ = 0;  // characters on the line now
  Clock::time_point started_;
  Clock::time_point last_;
};

}  // namespace qllm::app
