// What the sessions of a model do when: the engine's part of a trace.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "backend/profile.h"

namespace qllm {

enum class EngineWork : uint8_t {
  tokenize,
  prefill,  ///< one step of a prompt
  decode,   ///< one step of one token
  sample,
  emit,  ///< detokenizing, and the caller's callback
};

/// "tokenize", …
const char* to_string(EngineWork work);

struct EngineSpan {
  int64_t begin_ns = 0;  // of profile_now()
  int64_t end_ns = 0;
  int64_t tokens = 0;
  int32_t session = 0;  // its number, from 1
  EngineWork work = EngineWork::tokenize;
};

/// Sessions are on many threads, and a step of theirs is long beside a lock.
class EngineLog {
 public:
  bool on() const noexcept { return on_.load(std::memory_order_relaxed); }
  /// Forgets what was there and has room for `most` spans. Throws std::bad_alloc.
  void start(int64_t most);
  struct Taken {
    std::vector<EngineSpan> spans;
    int64_t dropped = 0;
  };
  /// Hands out what was added and gives up the memory.
  Taken stop() noexcept;
  /// Nothing while off. What finds no room is counted.
  void add(const EngineSpan& span) noexcept;

  int64_t size() const;
  int64_t dropped() const;

 private:
  std::atomic<bool> on_{false};
  mutable std::mutex mutex_;
  std::vector<EngineSpan> spans_;  // never grows
  int64_t dropped_ = 0;
};

/// Adds what happens while it lives; nothing where nobody records.
class EngineTimer {
 public:
  EngineTimer(EngineLog& log, int32_t session, EngineWork work, int64_t tokens = 0) : log_(log) {
    if (!log_.on()) return;
    span_ = {profile_now(), 0, tokens, session, work};
  }
  ~EngineTimer() {
    if (span_.session == 0) return;
    span_.end_ns = profile_now();
    log_.add(span_);
  }
  EngineTimer(const EngineTimer&) = delete;
  EngineTimer& operator=(const EngineTimer&) = delete;

  void set_tokens(size_t tokens) { span_.tokens = static_cast<int64_t>(tokens); }

 private:
  EngineLog& log_;
  EngineSpan span_;  // session 0: off
};

}  // namespace qllm
