// --trace FILE: what the command's model did, op by op.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "qllm/trace.hpp"
#include "whole_file.h"

namespace qllm::app {

struct TraceFlags {
  std::string path;
  int64_t memory = TraceOptions().memory_bytes;

  void add_to(CLI::App& command);
};

/// Written when the command ends, however it does: a trace of what was interrupted is the one that
/// is wanted. The file appears whole or not at all. Without a path all calls do nothing.
class TraceFile {
 public:
  /// Opens the file, so that what cannot be written is known before the work. Throws Error (io).
  explicit TraceFile(const TraceFlags& flags);
  /// Writes what there is unless finish() did; what goes wrong then is reported, not thrown.
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  /// From here on. Throws Error.
  void start(const Model& model);
  /// Writes the file, and to stderr what found no room. Throws Error (io).
  void finish();

 private:
  TraceFlags flags_;
  std::optional<WholeFile> file_;
  std::optional<Trace> trace_;
};

}  // namespace qllm::app
