#include "text/chat_template.h"

#include <doctest/doctest.h>

#include "qllm/error.hpp"
#include "text/jinja_literals.h"
#include "unit/text/chat_goldens.h"

namespace qllm {

TEST_CASE("chat template: renders byte for byte what Jinja makes of the model's template") {
  for (const auto& golden : test::chat_goldens()) {
    CAPTURE(golden.name);
    const ChatFormat format = detect_chat_format(golden.jinja);
    CHECK(render_chat(format, golden.jinja, golden.messages, golden.add_generation_prompt) ==
          golden.expected);
  }
}

TEST_CASE("chat template: the format is known by its marks") {
  CHECK(detect_chat_format("") == ChatFormat::chatml);
  CHECK(detect_chat_format("x <|im_start|> y") == ChatFormat::chatml);
  CHECK(detect_chat_format("<|start_header_id|>") == ChatFormat::llama3);
  CHECK(detect_chat_format("[INST] <<SYS>>") == ChatFormat::llama2);
  CHECK_THROWS_AS(detect_chat_format("<|user|>"), Error);
  CHECK_THROWS_AS(detect_chat_format("[INST] {{ content }} [/INST]"), Error);
}

TEST_CASE("chat template: a default system message is read from the template, not invented") {
  const std::vector<ChatMessage> messages{{"user", "Hi"}};
  CHECK(render_chat(ChatFormat::chatml, "", messages, false) == "<|im_start|>user\nHi<|im_end|>\n");
  const std::string with_default =
      "{# '<|im_start|>system\\nno<|im_end|>' #}{{ \"<|im_start|>system\\nSay "
      "\\\"aye\\\"<|im_end|>\\n\" }}";
  CHECK(render_chat(ChatFormat::chatml, with_default, messages, false) ==
        "<|im_start|>system\nSay \"aye\"<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
}

TEST_CASE("chat template: unknown roles and turns out of order are invalid arguments") {
  const std::vector<ChatMessage> robot{{"robot", "x"}};
  const std::vector<ChatMessage> twice{{"user", "x"}, {"user", "y"}};
  const std::vector<ChatMessage> late{{"user", "x"}, {"system", "y"}};
  CHECK_THROWS_AS(render_chat(ChatFormat::chatml, "", robot, true), Error);
  CHECK_THROWS_AS(render_chat(ChatFormat::llama2, "", twice, true), Error);
  CHECK_THROWS_AS(render_chat(ChatFormat::llama2, "", late, true), Error);
}

TEST_CASE("chat template: an empty conversation opens the assistant's turn") {
  CHECK(render_chat(ChatFormat::chatml, "", {}, true) == "<|im_start|>assistant\n");
  CHECK(render_chat(ChatFormat::llama2, "", {}, true).empty());
}

TEST_CASE("jinja literals: a template that ends in the middle of anything is read to its end") {
  const std::string whole = "a {{ 'b\\'c' + \"d\" }} {# 'no' #} {% set x = 'e\\n' %} 'f'";
  CHECK(jinja_literals(whole) == std::vector<std::string>{"b'c", "d", "e\n"});
  for (size_t n = 0; n < whole.size(); ++n) CHECK(jinja_literals(whole.substr(0, n)).size() <= 3);
}

}  // namespace qllm
