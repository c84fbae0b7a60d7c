#include "input.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>

#include "interrupt.h"
#include "qllm/error.hpp"
#include "terminal.h"

namespace qllm::app {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::string read_all(std::FILE* file, const std::string& name) {
  std::string text;
  char block[1 << 16];
  while (const size_t n = std::fread(block, 1, sizeof block, file)) text.append(block, n);
  if (std::ferror(file) != 0) {
    throw Error(ErrorCode::io, fmt::format("{}: cannot read: {}", name, std::strerror(errno)));
  }
  return text;
}

bool is_separator(char c) {
  return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '[' || c == ']';
}

// The next run of characters that are no separators; empty at the end.
std::string_view next_word(std::string_view& rest) {
  size_t begin = 0;
  while (begin < rest.size() && is_separator(rest[begin])) ++begin;
  size_t end = begin;
  while (end < rest.size() && !is_separator(rest[end])) ++end;
  const std::string_view word = rest.substr(begin, end - begin);
  rest.remove_prefix(end);
  return word;
}

template <typename T>
bool parse_number(std::string_view word, T& value) {
  const auto [end, status] = std::from_chars(word.data(), word.data() + word.size(), value);
  return status == std::errc{} && end == word.data() + word.size();
}

}  // namespace

std::string read_text(const std::string& path) {
  if (path == "-") return read_all(stdin, "standard input");
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
  if (!file) {
    throw Error(errno == ENOENT ? ErrorCode::not_found : ErrorCode::io,
                fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  }
  struct stat status = {};
  if (::fstat(::fileno(file.get()), &status) == 0 && S_ISDIR(status.st_mode)) {
    throw Error(ErrorCode::io, fmt::format("{}: expected a text file, found a directory", path));
  }
  return read_all(file.get(), path);
}

void TextSource::add_to(CLI::App& command, const std::string& what) {
  auto* p = command.add_option("-p,--prompt", prompt, what)->type_name("TEXT");
  auto* f = command.add_option("-f,--file", file, "read it from a file")->type_name("FILE");
  auto* d = command.add_option("input", dash, "- reads it from standard input")
                ->type_name("-")
                ->check(CLI::IsMember({"-"}));
  p->excludes(f)->excludes(d);
  f->excludes(d);
}

std::string TextSource::read() const {
  if (prompt) return *prompt;
  if (file) return read_text(*file);
  if (!dash && stdin_is_terminal()) {
    throw UsageError{"no text: give -p TEXT, -f FILE or - for standard input"};
  }
  return read_text("-");
}

std::vector<int32_t> parse_ids(const std::string& text) {
  const std::string content = text == "-" ? read_text("-") : text;
  std::string_view rest = content;
  std::vector<int32_t> ids;
  for (auto word = next_word(rest); !word.empty(); word = next_word(rest)) {
    int32_t id = 0;
    if (!parse_number(word, id) || id < 0) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("ids: expected token numbers from 0, found '{:.40}'", word));
    }
    ids.push_back(id);
  }
  return ids;
}

std::vector<int> parse_counts(const std::string& text, std::string_view option) {
  std::string_view rest = text;
  std::vector<int> counts;
  for (auto word = next_word(rest); !word.empty(); word = next_word(rest)) {
    int count = 0;
    if (!parse_number(word, count) || count < 0) {
      throw UsageError{fmt::format("{}: expected numbers such as 1,2, found '{}'", option, text)};
    }
    counts.push_back(count);
  }
  if (counts.empty()) throw UsageError{fmt::format("{}: expected at least one number", option)};
  return counts;
}

// No signal ends a read, and another thread may have taken it: look now and then, and once more
// before what is there, or the end of input, is taken for an answer.
void LineReader::wait_for_input() {
  constexpr int kLookMs = 200;
  pollfd input = {STDIN_FILENO, POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&input, 1, kLookMs);
    throw_if_interrupted();
  } while (ready == 0 || (ready < 0 && errno == EINTR));
}

std::optional<std::string> LineReader::next() {
  for (;;) {
    const size_t end = buffer_.find('\n');
    if (end != std::string::npos || (ended_ && !buffer_.empty())) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end == std::string::npos ? end : end + 1);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      return line;
    }
    if (ended_) return std::nullopt;
    wait_for_input();
    char block[4096];
    const ssize_t n = ::read(STDIN_FILENO, block, sizeof block);
    if (n > 0) buffer_.append(block, static_cast<size_t>(n));
    if (n == 0) ended_ = true;
    if (n < 0 && errno != EINTR) {
      throw Error(ErrorCode::io,
                  fmt::format("standard input: cannot read: {}", std::strerror(errno)));
    }
  }
}

}  // namespace qllm::app
