#!/usr/bin/env python3
"""Prints tests/unit/text/chat_goldens.h: what Jinja makes of chat templates.

    pip install jinja2
    scripts/make_chat_goldens.py > tests/unit/text/chat_goldens.h

The templates are what the published tokenizer_config.json files do, in the plain case (no tools).
"""
import json

import jinja2
import jinja2.sandbox

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}")
QWEN25 = (
    "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n{%- else %}\n"
    "    {%- if messages[0]['role'] == 'system' %}\n"
    "        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
    "assistant.<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n"
    "    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or "
    "(message.role == \"assistant\") %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n")
PLAIN_CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}")
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}")
TEMPLATES = [("smollm2", SMOLLM2, ""), ("qwen2.5", QWEN25, ""), ("chatml", PLAIN_CHATML, ""),
             ("llama2", LLAMA2, "<s>"), ("llama3", LLAMA3, "<|begin_of_text|>")]

USER, MORE = ("user", "What is 2+2? It's \"four\".\n"), ("user", "  Grüße 你好\u00a0\t\n")
ANSWER, SYSTEM = ("assistant", " Four.  "), ("system", "Be brief.\n")
CONVERSATIONS = [[USER], [SYSTEM, USER], [USER, ANSWER, MORE], [SYSTEM, USER, ANSWER, MORE],
                 [SYSTEM, USER, ANSWER]]


def literal(text):
    """A C++ string literal; octal escapes end by themselves, hexadecimal ones do not."""
    out = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else
                  {10: "\\n", 34: '\\"', 92: "\\\\"}.get(b, f"\\{b:03o}") for b in text.encode())
    return f'"{out}"'


def main():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    print("// Made by scripts/make_chat_goldens.py; do not edit.\n#pragma once\n\n#include <string>\n"
          "#include <vector>\n\n#include \"text/chat_template.h\"\n\nnamespace qllm::test {\n\n"
          "struct ChatGolden {\n  std::string name, jinja;\n  std::vector<ChatMessage> messages;\n"
          "  bool add_generation_prompt;\n  std::string expected;\n};\n\n// clang-format off\n"
          "inline std::vector<ChatGolden> chat_goldens() {\n  return {")
    for name, source, bos in TEMPLATES:
        template = environment.from_string(source)
        for conversation in CONVERSATIONS:
            for generate in (False, True):
                text = template.render(
                    messages=[{"role": r, "content": c} for r, c in conversation],
                    add_generation_prompt=generate, bos_token=bos, eos_token="</s>")
                messages = ", ".join(f"{{{literal(r)}, {literal(c)}}}" for r, c in conversation)
                print(f"    {{{literal(name)},\n     {literal(source)},\n     {{{messages}}},\n"
                      f"     {json.dumps(generate)},\n     {literal(text)}}},")
    print("  };\n}\n// clang-format on\n\n}  // namespace qllm::test")


main()
