#include "engine/engine_log.h"

#include <utility>

namespace qllm {

const char* to_string(EngineWork work) {
  switch (work) {
    case EngineWork::tokenize:
      return "tokenize";
    case EngineWork::prefill:
      return "prefill";
    case EngineWork::decode:
      return "decode";
    case EngineWork::sample:
      return "sample";
    case EngineWork::emit:
      return "emit";
  }
  return "unknown";
}

void EngineLog::start(int64_t most) {
  const std::lock_guard lock(mutex_);
  spans_ = {};
  spans_.reserve(static_cast<size_t>(most));
  dropped_ = 0;
  on_.store(true, std::memory_order_relaxed);
}

void EngineLog::add(const EngineSpan& span) noexcept {
  const std::lock_guard lock(mutex_);
  if (!on()) return;
  if (spans_.size() < spans_.capacity()) {
    spans_.push_back(span);
  } else {
    ++dropped_;
  }
}

EngineLog::Taken EngineLog::stop() noexcept {
  const std::lock_guard lock(mutex_);
  on_.store(false, std::memory_order_relaxed);
  return {std::exchange(spans_, {}), std::exchange(dropped_, 0)};
}

int64_t EngineLog::size() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(spans_.size());
}

int64_t EngineLog::dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

}  // namespace qllm
