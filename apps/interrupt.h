// Ctrl-C. Work that can stop by itself says so with a Scope: the first SIGINT then asks it to stop,
// a second leaves the program at once. Outside of any Scope the first leaves. Status 130 either
// way.
#pragma once

#include "qllm/qllm.hpp"

namespace qllm::app {

constexpr int kExitInterrupted = 130;

/// Thrown where work noticed the request; the program ends with status 130.
struct Interrupted {};

/// Sets the handler of SIGINT. Call once, first thing.
void install_interrupt_handler();

/// Whether SIGINT came since the last Scope was opened.
bool interrupt_requested() noexcept;

/// Throws Interrupted if so.
void throw_if_interrupted();

/// While it lives, SIGINT sets the request and calls cancel() of `session`. One at a time.
class InterruptScope {
 public:
  explicit InterruptScope(Session* session = nullptr) noexcept;
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
};

}  // namespace qllm::app
