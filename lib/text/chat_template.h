// The prompt of a conversation in the form a model was trained on.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "qllm/chat_message.hpp"

namespace qllm {

enum class ChatFormat { chatml, llama2, llama3 };

/// Recognises the format from a Jinja template by its marks (<|im_start|>, [INST],
/// <|start_header_id|>). Throws unsupported, saying what it knows, for any other; an empty template
/// gives chatml.
ChatFormat detect_chat_format(std::string_view jinja_template);

/// Renders the conversation as the template would; `add_generation_prompt` opens the assistant's
/// turn. `jinja_template` is looked at for details such as a default system message.
std::string render_chat(ChatFormat format, std::string_view jinja_template,
                        std::span<const ChatMessage> messages, bool add_generation_prompt);

}  // namespace qllm
