// qllm chat: a conversation in the model's own format.
#include <fmt/format.h>

#include <exception>
#include <optional>
#include <vector>

#include "command.h"
#include "input.h"
#include "interrupt.h"
#include "options.h"
#include "trace_file.h"

namespace qllm::app {
namespace {

struct ChatOptions {
  std::string model;
  std::string system;
  SamplingOptions sampling;
  TraceFlags trace;
  CommonOptions common;

  ChatOptions() { sampling.generate.max_tokens = 1024; }
  void add_to(CLI::App& command) {
    add_model(command, model)->required();
    command.add_option("--system", system, "what the model is told first")->type_name("TEXT");
    sampling.add_to(command);
    trace.add_to(command);
    common.add_to(command);
    common.add_kv_to(command);
    command.footer(
        "/reset starts anew, /exit or the end of input leaves. Ctrl-C stops the answer, "
        "a second one leaves.");
  }
};

// Some templates write the begin-of-text token themselves, others leave it to the tokenizer: add
// what add_special puts in front, unless it is there already.
std::vector<int32_t> conversation_ids(const Model& model, const std::string& text) {
  std::vector<int32_t> plain = model.tokenize(text, false, true);
  const std::vector<int32_t> special = model.tokenize(text, true, true);
  const bool prefixed = special.size() > plain.size() && !plain.empty() &&
                        std::equal(plain.begin(), plain.end(), special.begin() + 1);
  if (prefixed && special.front() != plain.front()) plain.insert(plain.begin(), special.front());
  return plain;
}

class Conversation {
 public:
  Conversation(const Model& model, const ChatOptions& options)
      : model_(model), options_(options), session_(model, options.sampling.context) {
    reset();
  }

  void reset() {
    messages_.clear();
    if (!options_.system.empty()) messages_.push_back({"system", options_.system});
    session_.reset();
  }

  /// Answers on standard output. False where the context has no room for the question.
  bool ask(const std::string& question);

 private:
  GenerateResult answer(std::span<const int32_t> ids);
  void explain(const GenerateResult& result, bool interrupted) const;

  const Model& model_;
  const ChatOptions& options_;
  Session session_;
  std::vector<ChatMessage> messages_;
};

GenerateResult Conversation::answer(std::span<const int32_t> ids) {
  std::exception_ptr failure;
  const auto write = [&](std::string_view text) {
    try {
      write_stdout(text);
    } catch (...) {
      failure = std::current_exception();
    }
    return !failure && !interrupt_requested();
  };
  GenerateResult result = session_.generate_ids(ids, options_.sampling.options(), write);
  if (failure) std::rethrow_exception(failure);
  return result;
}

bool Conversation::ask(const std::string& question) {
  messages_.push_back({"user", question});
  const std::string text = model_.render_chat(messages_, true);
  try {
    const InterruptScope scope(&session_);
    const GenerateResult result = answer(conversation_ids(model_, text));
    write_stdout("\n");
    messages_.push_back({"assistant", result.text});
    explain(result, interrupt_requested());
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::context_full) throw;
    messages_.pop_back();
    report_error(fmt::format("{}; /reset starts a new conversation", error.what()));
    return false;
  }
}

void Conversation::explain(const GenerateResult& result, bool interrupted) const {
  if (interrupted) {
    write_stderr("qllm: stopped; Ctrl-C again leaves\n");
  } else if (result.finish_reason == FinishReason::context_full) {
    write_stderr(
        fmt::format("qllm: the context of {} tokens is full; /reset starts a new "
                    "conversation, --context gives more room\n",
                    session_.max_context()));
  } else if (result.finish_reason == FinishReason::length) {
    write_stderr(
        fmt::format("qllm: cut off after {} tokens (--max-tokens)\n", result.generated_tokens));
  }
}

/// Ctrl-C here leaves, by way of main: a trace is written then.
std::optional<std::string> next_line(LineReader& lines) {
  const InterruptScope scope;
  try {
    return lines.next();
  } catch (const Interrupted&) {
    if (stderr_is_terminal()) write_stderr("\n");
    throw;
  }
}

int execute(const ChatOptions& options) {
  TraceFile trace(options.trace);
  const Model model = open_model(options.model, options.common);
  Conversation conversation(model, options);
  trace.start(model);
  const bool interactive = stdin_is_terminal();
  if (interactive && !options.common.quiet) {
    write_stderr("/reset starts anew, /exit leaves, Ctrl-C stops an answer\n");
  }
  LineReader lines;
  bool refused = false;
  for (;;) {
    if (interactive) write_stderr("> ");
    const auto line = next_line(lines);
    if (!line || *line == "/exit") break;
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    if (*line == "/reset") {
      conversation.reset();
    } else if (!conversation.ask(*line)) {
      refused = true;
    }
  }
  trace.finish();
  return refused && !interactive ? 1 : 0;  // a script must see that a question had no answer
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  add_command<ChatOptions>(app, action, "chat", "Talk with the model in its own format", execute);
}

}  // namespace qllm::app
