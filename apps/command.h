// The commands of the program, one file each (cmd_*.cpp).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace qllm::app {

/// What the parsed command will do; returns the exit status.
using Action = std::function<int()>;

// Each adds its sub-command to `app`; parsing that one sets `action`.
void add_run(CLI::App& app, Action& action);
void add_chat(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_detokenize(CLI::App& app, Action& action);
void add_template(CLI::App& app, Action& action);
void add_logits(CLI::App& app, Action& action);
void add_info(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_perplexity(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_roofline(CLI::App& app, Action& action);

/// Adds a sub-command whose options live in an `Options` with `add_to(CLI::App&)`, executed by
/// `execute(const Options&)`.
template <typename Options>
void add_command(CLI::App& app, Action& action, const char* name, const char* description,
                 int (*execute)(const Options&)) {
  CLI::App* command = app.add_subcommand(name, description);
  const auto options = std::make_shared<Options>();
  options->add_to(*command);
  command->callback(
      [options, execute, &action] { action = [options, execute] { return execute(*options); }; });
}

}  // namespace qllm::app
