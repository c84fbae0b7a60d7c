// qllm tokenize, qllm detokenize: text to token ids and back.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "command.h"
#include "input.h"
#include "options.h"
#include "report.h"

namespace qllm::app {
namespace {

struct TokenizeOptions {
  std::string model;
  TextSource text;
  bool no_special = false;
  bool parse_special = false;
  bool json = false;
  CommonOptions common;

  void add_to(CLI::App& command) {
    add_model(command, model)->required();
    text.add_to(command, "the text");
    command.add_flag("--no-special", no_special, "without begin- and end-of-text tokens");
    command.add_flag("--parse-special", parse_special, "recognise control tokens in the text");
    command.add_flag("--json", json, "an object instead of the bare array");
    common.add_to(command);
  }
};

struct DetokenizeOptions {
  std::string model;
  std::string ids;
  bool special = false;
  bool json = false;
  CommonOptions common;

  void add_to(CLI::App& command) {
    add_model(command, model)->required();
    command.add_option("--ids", ids, "token ids, such as 1,2,3; - reads them from standard input")
        ->type_name("LIST")
        ->required();
    command.add_flag("--special", special, "write control tokens out");
    command.add_flag("--json", json, "an object instead of the bare text");
    common.add_to(command);
  }
};

int tokenize(const TokenizeOptions& options) {
  const std::string text = options.text.read();
  const Vocabulary vocabulary = Vocabulary::open(options.model);
  const auto ids = vocabulary.tokenize(text, !options.no_special, options.parse_special);
  const std::string array = fmt::format("[{}]", fmt::join(ids, ","));
  write_stdout(options.json ? fmt::format("{{\"ids\": {}}}\n", array) : array + "\n");
  return 0;
}

int detokenize(const DetokenizeOptions& options) {
  const std::vector<int32_t> ids = parse_ids(options.ids);
  const Vocabulary vocabulary = Vocabulary::open(options.model);
  const std::string text = vocabulary.detokenize(ids, options.special);
  if (options.json) {
    print_json({{"text", text}});
  } else {
    write_stdout(text);  // byte for byte: a newline only helps a terminal
    if (stdout_is_terminal()) write_stdout("\n");
  }
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Action& action) {
  add_command<TokenizeOptions>(app, action, "tokenize", "Text to token ids", tokenize);
}

void add_detokenize(CLI::App& app, Action& action) {
  add_command<DetokenizeOptions>(app, action, "detokenize", "Token ids to text", detokenize);
}

}  // namespace qllm::app
