#include "text/jinja_literals.h"

#include <array>
#include <utility>

namespace qllm {
namespace {

constexpr std::array<std::pair<char, char>, 5> kEscapes = {
    {{'n', '\n'}, {'t', '\t'}, {'r', '\r'}, {'f', '\f'}, {'v', '\v'}}};

// The literal that begins behind the quote at `at`; moves `at` behind its closing quote.
std::string read_literal(std::string_view text, size_t& at) {
  const char quote = text[at++];
  std::string literal;
  while (at < text.size() && text[at] != quote) {
    char c = text[at++];
    if (c == '\\' && at < text.size()) {
      c = text[at++];
      bool known = c == '\\' || c == '\'' || c == '"';
      for (const auto& [name, value] : kEscapes) {
        if (!known && c == name) {
          c = value;
          known = true;
        }
      }
      if (!known) literal.push_back('\\');  // as Python leaves it
    }
    literal.push_back(c);
  }
  if (at < text.size()) ++at;
  return literal;
}

// Reads the literals of one block, up to its closing mark.
void read_block(std::string_view text, size_t& at, std::string_view close,
                std::vector<std::string>& literals) {
  while (at < text.size() && !text.substr(at).starts_with(close)) {
    if (text[at] == '\'' || text[at] == '"') {
      literals.push_back(read_literal(text, at));
    } else {
      ++at;
    }
  }
}

}  // namespace

std::vector<std::string> jinja_literals(std::string_view jinja_template) {
  std::vector<std::string> literals;
  size_t at = 0;
  while ((at = jinja_template.find('{', at)) != std::string_view::npos) {
    const std::string_view rest = jinja_template.substr(at);
    if (rest.starts_with("{#")) {
      at = jinja_template.find("#}", at);
    } else if (rest.starts_with("{{")) {
      at += 2;
      read_block(jinja_template, at, "}}", literals);
    } else if (rest.starts_with("{%")) {
      at += 2;
      read_block(jinja_template, at, "%}", literals);
    } else {
      ++at;
    }
    if (at >= jinja_template.size()) break;
  }
  return literals;
}

}  // namespace qllm
