#include "text/chat_template.h"

#include <array>
#include <optional>

#include "core/error.h"
#include "text/jinja_literals.h"

namespace qllm {
namespace {

// What Python's str.strip() and with it Jinja's `trim` take off, in UTF-8.
constexpr std::array<std::string_view, 29> kWhiteSpace = {" ",
                                                          "\t",
                                                          "\n",
                                                          "\v",
                                                          "\f",
                                                          "\r",
                                                          "\x1C",
                                                          "\x1D",
                                                          "\x1E",
                                                          "\x1F",
                                                          "\xC2\x85",
                                                          "\xC2\xA0",
                                                          "\xE1\x9A\x80",
                                                          "\xE2\x80\x80",
                                                          "\xE2\x80\x81",
                                                          "\xE2\x80\x82",
                                                          "\xE2\x80\x83",
                                                          "\xE2\x80\x84",
                                                          "\xE2\x80\x85",
                                                          "\xE2\x80\x86",
                                                          "\xE2\x80\x87",
                                                          "\xE2\x80\x88",
                                                          "\xE2\x80\x89",
                                                          "\xE2\x80\x8A",
                                                          "\xE2\x80\xA8",
                                                          "\xE2\x80\xA9",
                                                          "\xE2\x80\xAF",
                                                          "\xE2\x81\x9F",
                                                          "\xE3\x80\x80"};

size_t leading_space(std::string_view text) {
  for (const std::string_view space : kWhiteSpace) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

size_t trailing_space(std::string_view text) {
  for (const std::string_view space : kWhiteSpace) {
    if (text.ends_with(space)) return space.size();
  }
  return 0;
}

std::string_view trim(std::string_view text) {
  while (const size_t n = leading_space(text)) text.remove_prefix(n);
  while (const size_t n = trailing_space(text)) text.remove_suffix(n);
  return text;
}

std::string joined(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text.append(part);
  return text;
}

bool has_system(std::span<const ChatMessage> messages) {
  return !messages.empty() && messages[0].role == "system";
}

// The system message that a ChatML template puts before a conversation without one: a literal
// "<|im_start|>system\n…<|im_end|>".
std::optional<std::string> default_system(std::string_view jinja_template) {
  constexpr std::string_view kOpen = "<|im_start|>system\n";
  constexpr std::string_view kClose = "<|im_end|>";
  for (const std::string& literal : jinja_literals(jinja_template)) {
    if (!literal.starts_with(kOpen)) continue;
    const size_t close = literal.find(kClose, kOpen.size());
    if (close != std::string::npos) return literal.substr(kOpen.size(), close - kOpen.size());
  }
  return std::nullopt;
}

std::string render_chatml(std::string_view jinja_template, std::span<const ChatMessage> messages,
                          bool add_generation_prompt) {
  std::string text;
  const auto append = [&](std::string_view role, std::string_view content) {
    text += joined({"<|im_start|>", role, "\n", content, "<|im_end|>\n"});
  };
  if (!messages.empty() && !has_system(messages)) {
    if (const auto system = default_system(jinja_template)) append("system", *system);
  }
  for (const ChatMessage& message : messages) append(message.role, message.content);
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

std::string render_llama3(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text = messages.empty() ? "" : "<|begin_of_text|>";
  for (const ChatMessage& message : messages) {
    text += joined({"<|start_header_id|>", message.role, "<|end_header_id|>\n\n",
                    trim(message.content), "<|eot_id|>"});
  }
  if (add_generation_prompt) text += "<|start_header_id|>assistant<|end_header_id|>\n\n";
  return text;
}

// The assistant's turn follows the user's without a mark of its own, so there is nothing to open.
std::string render_llama2(std::string_view jinja_template, std::span<const ChatMessage> messages) {
  // Some descendants put bos only before the whole conversation.
  const bool bos_per_turn = jinja_template.find("{{ bos_token }}") == std::string_view::npos;
  std::string text;
  std::string system;
  if (has_system(messages)) {
    system = joined({"<<SYS>>\n", messages[0].content, "\n<</SYS>>\n\n"});
    messages = messages.subspan(1);
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const bool user = messages[i].role == "user";
    require(user == (i % 2 == 0) && (user || messages[i].role == "assistant"),
            ErrorCode::invalid_argument,
            "chat: message {}: this model's turns alternate user, assistant, user, …; found '{}'",
            i, messages[i].role);
    if (user) {
      const std::string content = (i == 0 ? system : "") + messages[i].content;
      text += joined({i == 0 || bos_per_turn ? "<s>" : "", "[INST] ", trim(content), " [/INST]"});
    } else {
      text += joined({" ", trim(messages[i].content), " </s>"});
    }
  }
  return text;
}

}  // namespace

ChatFormat detect_chat_format(std::string_view jinja_template) {
  const auto has = [&](std::string_view mark) {
    return jinja_template.find(mark) != std::string_view::npos;
  };
  if (jinja_template.empty() || has("<|im_start|>")) return ChatFormat::chatml;
  if (has("<|start_header_id|>")) return ChatFormat::llama3;
  if (has("[INST]") && has("<<SYS>>")) return ChatFormat::llama2;
  fail(ErrorCode::unsupported,
       "chat template: not one of the known formats: ChatML (<|im_start|>), Llama 2 ([INST] with "
       "<<SYS>>), Llama 3 (<|start_header_id|>)");
}

std::string render_chat(ChatFormat format, std::string_view jinja_template,
                        std::span<const ChatMessage> messages, bool add_generation_prompt) {
  for (const ChatMessage& message : messages) {
    const bool known =
        message.role == "system" || message.role == "user" || message.role == "assistant";
    require(known, ErrorCode::invalid_argument,
            "chat: role '{}' is not known; known are system, user, assistant", message.role);
  }
  switch (format) {
    case ChatFormat::chatml:
      return render_chatml(jinja_template, messages, add_generation_prompt);
    case ChatFormat::llama2:
      return render_llama2(jinja_template, messages);
    case ChatFormat::llama3:
      return render_llama3(messages, add_generation_prompt);
  }
  fail(ErrorCode::invalid_argument, "chat: unknown format {}", static_cast<int>(format));
}

}  // namespace qllm
