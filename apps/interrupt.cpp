#include "interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

namespace qllm::app {
namespace {

// The one mutable global of the program: a signal handler has no other way to reach anything.
struct State {
  std::atomic<bool> scoped{false};
  std::atomic<bool> requested{false};
  std::atomic<Session*> session{nullptr};
  std::atomic<int> busy{0};  // handlers at work: a Session must outlive them
};
static_assert(std::atomic<bool>::is_always_lock_free);
static_assert(std::atomic<Session*>::is_always_lock_free);
State state;

void on_sigint(int /*signal*/) {
  if (!state.scoped.load() || state.requested.exchange(true)) {
    if (::isatty(STDERR_FILENO) == 1) {
      [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, "\n", 1);
    }
    ::_exit(kExitInterrupted);
  }
  state.busy.fetch_add(1);
  if (Session* session = state.session.load()) session->cancel();
  state.busy.fetch_sub(1);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action = {};
  action.sa_handler = on_sigint;
  action.sa_flags = SA_RESTART;  // nothing here depends on an interrupted system call
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

bool interrupt_requested() noexcept { return state.requested.load(); }

void throw_if_interrupted() {
  if (interrupt_requested()) throw Interrupted{};
}

InterruptScope::InterruptScope(Session* session) noexcept {
  state.requested.store(false);
  state.session.store(session);
  state.scoped.store(true);
}

InterruptScope::~InterruptScope() {
  state.scoped.store(false);
  state.session.store(nullptr);
  // Another thread may be inside the handler with the pointer it read before.
  while (state.busy.load() != 0) ::usleep(100);
}

}  // namespace qllm::app
