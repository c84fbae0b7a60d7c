// qllm template: the prompt that a conversation becomes.
#include <fmt/format.h>

#include <vector>

#include "command.h"
#include "input.h"
#include "options.h"
#include "report.h"

namespace qllm::app {
namespace {

struct TemplateOptions {
  std::string model;
  std::string template_file;
  std::string messages;
  std::string tools;
  bool no_generation_prompt = false;
  bool json = false;
  CommonOptions common;

  void add_to(CLI::App& command) {
    auto* m = add_model(command, model);
    command.add_option("--template", template_file, "a Jinja file (not supported yet)")
        ->type_name("FILE")
        ->excludes(m);
    command
        .add_option("--messages", messages,
                    "JSON: [{\"role\": \"user\", \"content\": \"…\"}, …]; - is standard input")
        ->type_name("FILE")
        ->required();
    command.add_option("--tools", tools, "JSON of tools (not supported yet)")->type_name("FILE");
    command.add_flag("--no-generation-prompt", no_generation_prompt,
                     "do not open the assistant's turn");
    command.add_flag("--json", json, "an object instead of the bare text");
    common.add_to(command);
  }
};

[[noreturn]] void bad_messages(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::bad_format, fmt::format("{}: {}", path, what));
}

std::string string_field(const Json& message, const char* key, size_t index,
                         const std::string& path) {
  const auto field = message.is_object() ? message.find(key) : message.end();
  if (!message.is_object() || field == message.end() || !field->is_string()) {
    bad_messages(path, fmt::format("message {}: expected a string '{}'", index, key));
  }
  return field->get<std::string>();
}

std::vector<ChatMessage> read_messages(const std::string& path) {
  // Arguments: no callback, no exceptions.
  const Json document = Json::parse(read_text(path), nullptr, false);
  if (document.is_discarded()) bad_messages(path, "expected JSON");
  if (!document.is_array()) bad_messages(path, "expected an array of messages");
  std::vector<ChatMessage> messages;
  for (const Json& message : document) {
    const size_t index = messages.size();
    messages.push_back({string_field(message, "role", index, path),
                        string_field(message, "content", index, path)});
  }
  return messages;
}

int execute(const TemplateOptions& options) {
  if (!options.template_file.empty() || !options.tools.empty()) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{} is not supported yet: give a MODEL and messages without tools",
                            options.tools.empty() ? "--template" : "--tools"));
  }
  if (options.model.empty()) throw UsageError{"MODEL or --template is required"};
  const std::vector<ChatMessage> messages = read_messages(options.messages);
  const Vocabulary vocabulary = Vocabulary::open(options.model);
  const std::string text = vocabulary.render_chat(messages, !options.no_generation_prompt);
  if (options.json) {
    print_json({{"text", text}});
  } else {
    write_stdout(text);
    if (stdout_is_terminal()) write_stdout("\n");
  }
  return 0;
}

}  // namespace

void add_template(CLI::App& app, Action& action) {
  add_command<TemplateOptions>(app, action, "template", "Show the prompt of a conversation",
                               execute);
}

}  // namespace qllm::app
