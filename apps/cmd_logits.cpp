// qllm logits: the raw output of the model, for comparison with other programs.
#include <fmt/format.h>

#include <exception>

#include "command.h"
#include "input.h"
#include "interrupt.h"
#include "npy.h"
#include "options.h"

namespace qllm::app {
namespace {

struct LogitsOptions {
  std::string model;
  std::string ids;
  std::string output;
  CommonOptions common;

  void add_to(CLI::App& command) {
    add_model(command, model)->required();
    command.add_option("--ids", ids, "token ids, such as 1,2,3; - reads them from standard input")
        ->type_name("LIST")
        ->required();
    command.add_option("-o,--output", output, "float32 [n_tokens, vocab] in NumPy's format")
        ->type_name("OUT.npy")
        ->required();
    common.add_to(command);
  }
};

void check_ids(const std::vector<int32_t>& ids, int64_t vocab) {
  if (ids.empty()) throw Error(ErrorCode::invalid_argument, "--ids: expected at least one id");
  for (const int32_t id : ids) {
    if (id < vocab) continue;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("--ids: expected ids below the vocabulary's {}, found {}", vocab, id));
  }
}

// Hands logits to `writer` as they come.
void evaluate(Session& session, std::span<const int32_t> ids, NpyWriter& writer, ProgressBar& bar) {
  std::exception_ptr failure;
  const InterruptScope scope(&session);
  session.evaluate(ids, [&](int64_t first, int64_t count, std::span<const float> logits) {
    try {
      writer.write(logits);
    } catch (...) {
      failure = std::current_exception();
    }
    bar.update("evaluating", static_cast<double>(first + count) / static_cast<double>(ids.size()));
    return !failure && !interrupt_requested();
  });
  if (failure) std::rethrow_exception(failure);
  throw_if_interrupted();
}

int execute(const LogitsOptions& options) {
  const std::vector<int32_t> ids = parse_ids(options.ids);
  const Model model = open_model(options.model, options.common);
  const int64_t vocab = model.info().vocab_size;
  check_ids(ids, vocab);
  const auto count = static_cast<int64_t>(ids.size());
  Session session(model, count);
  NpyWriter writer(options.output, count, vocab);
  ProgressBar bar(!options.common.quiet);
  evaluate(session, ids, writer, bar);
  writer.finish();
  return 0;
}

}  // namespace

void add_logits(CLI::App& app, Action& action) {
  add_command<LogitsOptions>(app, action, "logits", "Write the logits of given tokens", execute);
}

}  // namespace qllm::app
