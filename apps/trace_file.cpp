#include "trace_file.h"

#include <fmt/format.h>

#include <exception>

#include "report.h"
#include "terminal.h"

namespace qllm::app {

void TraceFlags::add_to(CLI::App& command) {
  auto* file = command
                   .add_option("--trace", path,
                               "writes what each worker did, op by op, to this file: JSON for "
                               "ui.perfetto.dev or chrome://tracing (docs/tracing.md)")
                   ->type_name("FILE");
  command
      .add_option(
          "--trace-memory", memory,
          "of --trace: for what is recorded, such as 1GB (2^30), default 32MB; what finds no "
          "room is dropped")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(int64_t{64} << 10, int64_t{1} << 40))
      ->type_name("BYTES")
      ->needs(file);
}

TraceFile::TraceFile(const TraceFlags& flags) : flags_(flags) {
  if (!flags_.path.empty()) file_.emplace(flags_.path);
}

TraceFile::~TraceFile() {
  if (!trace_) return;
  try {
    finish();
  } catch (const std::exception& error) {
    report_error(error.what());
  } catch (...) {
    report_error("the trace could not be written");
  }
}

void TraceFile::start(const Model& model) {
  if (file_) trace_.emplace(model, TraceOptions{flags_.memory});
}

void TraceFile::finish() {
  if (!trace_) return;
  Trace trace = std::move(*trace_);
  trace_.reset();
  trace.stop();
  const TraceInfo info = trace.info();
  if (info.dropped_spans > 0) {
    write_stderr(fmt::format(
        "qllm: trace: {} of {} steps ({} of {} spans) found no room in {} (--trace-memory)\n",
        info.dropped_steps, info.steps + info.dropped_steps, info.dropped_spans,
        info.spans + info.dropped_spans, human_bytes(flags_.memory)));
  }
  trace.write([this](std::string_view piece) {
    file_->put(piece.data(), piece.size());
    return true;
  });
  file_->finish();
}

}  // namespace qllm::app
