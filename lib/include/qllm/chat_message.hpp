// One turn of a conversation.
#pragma once

#include <string>

namespace qllm {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

}  // namespace qllm
