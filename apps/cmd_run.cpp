// qllm run: completes a text, streaming, and says how fast that was.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <optional>

#include "command.h"
#include "input.h"
#include "interrupt.h"
#include "options.h"
#include "report.h"
#include "trace_file.h"

namespace qllm::app {
namespace {

struct RunOptions {
  std::string model;
  TextSource text;
  SamplingOptions sampling;
  std::string load_session;
  std::string save_session;
  bool json = false;
  TraceFlags trace;
  CommonOptions common;

  void add_to(CLI::App& command) {
    add_model(command, model)->required();
    text.add_to(command, "the text to complete");
    sampling.add_to(command);
    command
        .add_option("--load-session", load_session,
                    "a file of --save-session: what it holds of the prompt is not computed again")
        ->type_name("FILE");
    command
        .add_option("--save-session", save_session,
                    "writes the tokens with their keys and values to this file at the end")
        ->type_name("FILE");
    command.add_flag("--json", json, "one JSON document instead of the text");
    trace.add_to(command);
    common.add_to(command);
    common.add_kv_to(command);
  }
};

/// What a run reached. Absent where it was not measured or one token is too few for a rate.
struct Speed {
  std::optional<double> tokens_per_s;
  std::optional<double> gbps;     // 1e9 bytes that decode read, per second
  std::optional<double> ceiling;  // what the same workers can read, in the same unit

  std::optional<double> percent() const {
    if (!gbps || !ceiling || *ceiling <= 0) return std::nullopt;
    return 100 * *gbps / *ceiling;
  }
};

Speed speed_of(const ModelInfo& info, const GenerateResult& result, std::optional<double> ceiling) {
  Speed speed;
  speed.ceiling = ceiling;
  if (result.generated_tokens < 2 || result.decode_s <= 0) return speed;
  const auto steps = static_cast<double>(result.generated_tokens - 1);
  // A step reads the weights and what the cache holds, which grows by one token a step.
  const double depth = static_cast<double>(result.prompt_tokens) + (steps - 1) / 2;
  const double bytes = static_cast<double>(info.bytes_per_token) +
                       static_cast<double>(info.kv_bytes_per_token) * depth;
  speed.tokens_per_s = steps / result.decode_s;
  speed.gbps = *speed.tokens_per_s * bytes / 1e9;
  return speed;
}

std::string speed_line(const GenerateResult& result, const Speed& speed) {
  const std::string reused =
      result.reused_tokens > 0 ? fmt::format(" ({} known)", result.reused_tokens) : "";
  std::string line =
      fmt::format("qllm: prompt {} tokens{}, first token {:.2f} s; {} tokens", result.prompt_tokens,
                  reused, result.ttft_s, result.generated_tokens);
  if (speed.tokens_per_s) {
    line += fmt::format(" at {:.1f} tok/s = {:.1f} GB/s", *speed.tokens_per_s, *speed.gbps);
  }
  if (const auto percent = speed.percent()) {
    line +=
        fmt::format(", {:.0f} % of the {:.1f} GB/s this machine reads", *percent, *speed.ceiling);
  }
  return line + "\n";
}

void print_result(const GenerateResult& result, const Speed& speed) {
  const auto number = [](const std::optional<double>& x) {
    return x && *x > 0 ? Json(*x) : Json(nullptr);  // the reference knows no ceiling
  };
  Json json;
  json["text"] = result.text;
  json["prompt_tokens"] = result.prompt_tokens;
  json["reused_tokens"] = result.reused_tokens;
  json["generated_tokens"] = result.generated_tokens;
  json["ttft_ms"] = result.ttft_s * 1e3;
  json["decode_tokens_per_s"] = number(speed.tokens_per_s);
  json["decode_gbps"] = number(speed.gbps);
  json["ceiling_gbps"] = number(speed.ceiling);
  json["percent_of_ceiling"] = number(speed.percent());
  json["finish_reason"] = std::string(to_string(result.finish_reason));
  print_json(json);
}

// Writes text as it comes. What standard output refuses is thrown once the library has returned.
GenerateResult stream(Session& session, const std::string& prompt, const RunOptions& options) {
  std::exception_ptr failure;
  const auto write = [&](std::string_view text) {
    try {
      if (!options.json) write_stdout(text);
    } catch (...) {
      failure = std::current_exception();
    }
    return !failure && !interrupt_requested();
  };
  GenerateResult result = session.generate(prompt, options.sampling.options(), write);
  if (failure) std::rethrow_exception(failure);
  const bool open_line = result.text.empty() || result.text.back() != '\n';
  if (!options.json && open_line) write_stdout("\n");
  return result;
}

int execute(const RunOptions& options) {
  const std::string prompt = options.text.read();
  if (prompt.empty()) throw Error(ErrorCode::invalid_argument, "the prompt is empty");
  TraceFile trace(options.trace);
  const Model model = open_model(options.model, options.common);
  Session session(model, options.sampling.context);
  if (!options.load_session.empty()) session.restore(options.load_session);
  const bool measure = !options.common.quiet;
  std::optional<double> ceiling;
  bool interrupted = false;
  GenerateResult result;
  {
    const InterruptScope scope(&session);
    // The machine's bandwidth moves with its neighbours: take it on both sides of the run.
    if (measure) ceiling = model.measure_read_gbps();
    throw_if_interrupted();
    trace.start(model);
    result = stream(session, prompt, options);
    interrupted = interrupt_requested();
    trace.finish();
    if (measure && !interrupted) ceiling = std::max(*ceiling, model.measure_read_gbps());
  }
  if (!options.save_session.empty()) session.save(options.save_session);
  const Speed speed = speed_of(model.info(), result, ceiling);
  if (options.json) print_result(result, speed);
  if (!options.json && measure) write_stderr(speed_line(result, speed));
  return interrupted ? kExitInterrupted : 0;
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  add_command<RunOptions>(app, action, "run", "Complete a text, streaming", execute);
}

}  // namespace qllm::app
