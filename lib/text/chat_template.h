// The prompt of a conversation in the form a model was trained on.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "qllm/chat_message.hpp"

namespace qllm {

enum class ChatFormat { chatml, llama2, llama3 };

/// Recognises the format from a Jinja template by its marks (<|im_start|>, [INST] with <<SYS>>,
/// <|start_header_id|>). Throws unsupported, saying what it knows, for any other; an empty template
/// gives chatml.
ChatFormat detect_chat_format(std::string_view jinja_template);

/// Renders the conversation as the template would; `add_generation_prompt` opens the assistant's
/// turn. `jinja_template` is looked at for details such as a default system message. The text
/// begins with the bos token where the template puts it: encode it with add_special off,
/// parse_special on. Throws invalid_argument for other roles than the three, and for turns out of
/// order in llama2.
std::string render_chat(ChatFormat format, std::string_view jinja_template,
                        std::span<const ChatMessage> messages, bool add_generation_prompt);

}  // namespace qllm
