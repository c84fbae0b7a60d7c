// Flags that several commands share, and a model opened as they say.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "qllm/qllm.hpp"
#include "terminal.h"

namespace qllm::app {

struct CommonOptions {
  int threads = 0;
  std::string cpus;
  std::string device = "auto";
  std::string gpu_layers = "auto";
  std::string isa;
  std::string numa = "split";
  std::string scheme;
  bool no_rotate = false;
  std::string kv_format = "bf16";
  int64_t kv_memory = 0;
  int64_t max_batch_tokens = 512;
  bool no_cache = false;
  int64_t cache_size = OpenOptions().cache_bytes;
  std::string memory = "auto";
  bool mlock = false;
  std::string log_level = "warning";
  bool quiet = false;

  /// `with_threads`: bench has its own --threads, which takes a list.
  void add_to(CLI::App& command, bool with_threads = true);
  /// For commands that run the model.
  void add_kv_to(CLI::App& command);
  /// For the library; `bar` shows its progress. SIGINT cancels. Throws Error (unsupported).
  OpenOptions open_options(const std::shared_ptr<ProgressBar>& bar) const;
};

/// How text is made, for run and chat.
struct SamplingOptions {
  GenerateOptions generate;
  int64_t context = 0;
  bool greedy = false;

  void add_to(CLI::App& command);
  GenerateOptions options() const;
};

/// Adds the positional MODEL.
CLI::Option* add_model(CLI::App& command, std::string& path);

/// Opens with a progress bar. Throws Error, Interrupted.
Model open_model(const std::string& path, const CommonOptions& common);
Model open_synthetic(const SyntheticShape& shape, const CommonOptions& common);

}  // namespace qllm::app
