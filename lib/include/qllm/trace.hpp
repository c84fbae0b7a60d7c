// What every worker, device and session of a model did when, op by op, as a trace that Perfetto
// (https://ui.perfetto.dev) and chrome://tracing open. docs/tracing.md says how to read it.
//
//   qllm::Trace trace(model);
//   session.generate(...);
//   std::ofstream file("trace.json");
//   trace.write([&](std::string_view piece) { return bool(file << piece); });
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "qllm/qllm.hpp"

namespace qllm {

struct TraceOptions {
  int64_t memory_bytes = int64_t{32} << 20;  ///< taken at once; what finds no room is counted and
                                             ///< dropped, whole steps at a time
};

struct TraceInfo {
  int64_t steps = 0;  ///< recorded, of all sessions: one pass over the weights each
  int64_t spans = 0;  ///< recorded: an op on a worker, a call of a session
  int64_t dropped_steps = 0;
  int64_t dropped_spans = 0;
};

/// Records a model while it lives, from any thread and whatever its sessions do; a step takes less
/// than 1 % longer. The library writes no file: the trace is handed out.
class QLLM_API Trace {
 public:
  /// Begins to record. Throws invalid_argument where the model is being recorded already, or for
  /// less than 64 KiB; out_of_memory.
  explicit Trace(const Model& model, const TraceOptions& options = {});
  /// Ends; nothing is written.
  ~Trace();
  Trace(Trace&&) noexcept;
  Trace& operator=(Trace&&) noexcept;

  /// Ends the recording, behind the step that runs. Again: nothing.
  void stop();
  TraceInfo info() const;

  /// Receives a piece of the text; return false to end.
  using WriteFn = std::function<bool(std::string_view piece)>;
  /// Ends the recording and hands out all of it, in the trace event format (JSON object form,
  /// UTF-8), some 64 KiB at a time. May be called again. Throws cancelled where `on_piece` returned
  /// false; what it throws comes through.
  void write(const WriteFn& on_piece);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qllm
