// qllm: finds the command, runs it, turns what went wrong into a message and an exit status.
#include <fmt/format.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <sstream>

#include "command.h"
#include "input.h"
#include "interrupt.h"
#include "qllm/qllm.hpp"
#include "terminal.h"

namespace qllm::app {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

int usage_error(const std::string& message, const std::string& command) {
  report_error(message);
  write_stderr(fmt::format("Try 'qllm {}--help'.\n", command.empty() ? "" : command + " "));
  return kExitUsage;
}

// --help and --version are exceptions too, to CLI11.
int finish_parse(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {
    std::ostringstream out;
    std::ostringstream err;
    app.exit(error, out, err);
    write_stdout(out.str());
    return 0;
  }
  const auto chosen = app.get_subcommands();
  return usage_error(error.what(), chosen.empty() ? "" : chosen.front()->get_name());
}

bool has_command(CLI::App& app, const std::string& name) {
  const auto named = [&](const CLI::App* command) { return command->check_name(name); };
  return !app.get_subcommands(named).empty();
}

int run_program(int argc, char** argv) {
  CLI::App app{"Runs LLaMA-like language models on the CPU with int8 weights.", "qllm"};
  app.set_version_flag("--version", "qllm " + version(), "print the version and exit");
  app.require_subcommand(1);
  Action action;
  for (const auto& add : {add_run, add_chat, add_tokenize, add_detokenize, add_template, add_logits,
                          add_info, add_quantize, add_bench, add_perplexity, add_roofline}) {
    add(app, action);
  }
  if (argc > 1 && argv[1][0] != '-' && !has_command(app, argv[1])) {
    return usage_error(fmt::format("no such command: {}", argv[1]), "");
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return finish_parse(app, error);
  }
  try {
    return action();
  } catch (const UsageError& error) {
    return usage_error(error.message, app.get_subcommands().front()->get_name());
  }
}

int guarded(int argc, char** argv) {
  try {
    return run_program(argc, argv);
  } catch (const ClosedPipe&) {
    return 0;  // the reader has what it wanted
  } catch (const Interrupted&) {
    return kExitInterrupted;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled && interrupt_requested()) return kExitInterrupted;
    report_error(error.what());
  } catch (const std::bad_alloc&) {
    report_error("out of memory");
  } catch (const std::exception& error) {
    report_error(error.what());
  }
  return kExitFailed;
}

}  // namespace
}  // namespace qllm::app

int main(int argc, char** argv) {
  // hwloc's plug-ins (graphics cards, PCI) bring in a dozen libraries and tell nothing that is
  // asked here: without them a start takes some 50 ms less.
  ::setenv("HWLOC_PLUGINS_PATH", "/nonexistent", 0);
  qllm::app::prepare_standard_streams();
  qllm::app::install_interrupt_handler();
  return qllm::app::guarded(argc, argv);
}
