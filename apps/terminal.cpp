#include "terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "qllm/error.hpp"

namespace qllm::app {
namespace {

constexpr int kBarWidth = 24;           // the whole line stays below 80 columns
constexpr double kRedrawSeconds = 0.1;  // faster than that is only flicker
constexpr double kEtaAfterSeconds = 2;  // an estimate from less is a guess

bool coloured() {
  if (!stderr_is_terminal()) return false;
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && no_color[0] != '\0') return false;
  const char* term = std::getenv("TERM");
  return term != nullptr && std::strcmp(term, "dumb") != 0;
}

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string time_left(double elapsed, double fraction) {
  if (elapsed < kEtaAfterSeconds || fraction <= 0 || fraction >= 1) return {};
  const auto left = static_cast<long>(elapsed * (1 - fraction) / fraction + 0.5);
  return left < 60 ? fmt::format("  {} s left", left)
                   : fmt::format("  {}:{:02} min left", left / 60, left % 60);
}

}  // namespace

bool stdin_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }
bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

void prepare_standard_streams() {
  // A closed stdout becomes one that refuses writes, so that lost output is an error.
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1) continue;
    if (::open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) != fd) std::abort();
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // beyond ulimit -f a write fails, too
}

void write_stdout(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EPIPE) {
      throw ClosedPipe{};
    } else if (errno != EINTR) {
      throw Error(ErrorCode::io,
                  fmt::format("standard output: cannot write: {}", std::strerror(errno)));
    }
  }
}

void write_stderr(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    if (n < 0 && errno != EINTR) return;
    if (n > 0) text.remove_prefix(static_cast<size_t>(n));
  }
}

void report_error(std::string_view message) noexcept {
  const bool colour = coloured();
  write_stderr("qllm: ");
  write_stderr(colour ? "\033[31merror:\033[0m " : "error: ");
  write_stderr(message);
  write_stderr("\n");
}

ProgressBar::ProgressBar(bool enabled) : enabled_(enabled && stderr_is_terminal()) {}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::update(std::string_view stage, double fraction) {
  if (!enabled_) return;
  const auto now = Clock::now();
  if (stage != stage_) {
    stage_ = stage;
    started_ = now;
  } else if (seconds_between(last_, now) < kRedrawSeconds) {
    return;
  }
  last_ = now;
  const double f = fraction >= 0 ? std::min(fraction, 1.0) : 0.0;  // NaN becomes 0
  const int filled = static_cast<int>(f * kBarWidth);
  std::string line =
      fmt::format("{:.30} [{:#<{}}{:.<{}}] {:3.0f} %{}", stage_, "", filled, "", kBarWidth - filled,
                  f * 100, time_left(seconds_between(started_, now), f));
  const size_t length = line.size();
  if (length < drawn_) line.append(drawn_ - length, ' ');
  drawn_ = length;
  write_stderr(fmt::format("\r{}", line));
}

void ProgressBar::clear() {
  if (drawn_ == 0) return;
  write_stderr(fmt::format("\r{:{}}\r", "", drawn_));
  drawn_ = 0;
  stage_.clear();
}

}  // namespace qllm::app
