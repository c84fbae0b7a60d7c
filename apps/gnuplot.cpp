#include "gnuplot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "qllm/error.hpp"

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace qllm::app {
namespace {

constexpr const char* kGnuplot = "gnuplot";

[[noreturn]] void fail(const std::string& why) {
  throw Error(ErrorCode::io, fmt::format("gnuplot: {}", why));
}

/// A file without a name, in memory.
class MemoryFile {
 public:
  explicit MemoryFile(const char* name) : fd_(::memfd_create(name, MFD_CLOEXEC)) {
    if (fd_ < 0) fail(std::strerror(errno));
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int fd() const { return fd_; }

  void write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::write(fd_, text.data(), text.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail(std::strerror(errno));
      text.remove_prefix(static_cast<size_t>(n));
    }
    rewind();
  }

  std::string read() {
    rewind();
    std::string text;
    std::array<char, 65536> block = {};
    for (;;) {
      const ssize_t n = ::read(fd_, block.data(), block.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return text;
      text.append(block.data(), static_cast<size_t>(n));
    }
  }

 private:
  void rewind() { ::lseek(fd_, 0, SEEK_SET); }
  int fd_;
};

struct Actions {
  posix_spawn_file_actions_t value;
  Actions() { ::posix_spawn_file_actions_init(&value); }
  ~Actions() { ::posix_spawn_file_actions_destroy(&value); }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;
  void connect(int from, int to) { ::posix_spawn_file_actions_adddup2(&value, from, to); }
};

/// Its exit status, or -1 where it could not be started. All three streams are files in memory, so
/// that neither side waits for the other.
int spawn(std::array<const char*, 3> arguments, const MemoryFile& in, const MemoryFile& out,
          const MemoryFile& err) {
  Actions actions;
  actions.connect(in.fd(), STDIN_FILENO);
  actions.connect(out.fd(), STDOUT_FILENO);
  actions.connect(err.fd(), STDERR_FILENO);
  pid_t pid = 0;
  const int started = ::posix_spawnp(&pid, arguments[0], &actions.value, nullptr,
                                     const_cast<char**>(arguments.data()), environ);
  if (started != 0) return -1;
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  // A shell's 127: there was no such program.
  return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}

}  // namespace

void require_gnuplot() {
  const MemoryFile in("in");
  const MemoryFile out("out");
  const MemoryFile err("err");
  if (spawn({kGnuplot, "--version", nullptr}, in, out, err) == 0) return;
  throw Error(ErrorCode::not_found,
              "--html: the plots are drawn by gnuplot, which was not found; install it (Debian, "
              "Ubuntu: gnuplot-nox)");
}

std::string run_gnuplot(const std::string& script) {
  MemoryFile in("script");
  MemoryFile out("plot");
  MemoryFile err("messages");
  in.write(script);
  const int status = spawn({kGnuplot, "-", nullptr}, in, out, err);
  const std::string messages = err.read();
  if (status != 0) {
    // The line that says what is wrong stands last.
    const size_t end = messages.find_last_not_of(" \n");
    const size_t begin = messages.find_last_of('\n', end);
    fail(end == std::string::npos ? "failed without a message"
                                  : messages.substr(begin + 1, end - begin));
  }
  return out.read();
}

std::string plot_text(const std::string& text) {
  std::string plain;
  for (const char c : text) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool is_harmless =
        is_letter || (c >= '0' && c <= '9') || std::strchr(" .,+-/()%^", c) != nullptr;
    plain += is_harmless && c != '\0' ? c : ' ';
  }
  return plain;
}

}  // namespace qllm::app
