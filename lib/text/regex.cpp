#include "text/regex.h"

#include "core/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace qllm {
namespace {

// Unicode's property White_Space as members of a character class.
constexpr std::string_view kWhiteSpace =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Steps of matching before one match is given up; a text of some megabytes without a break needs
// fewer, and no text can hold a thread for long.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;

std::string expand_white_space(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 == pattern.size()) {
      in_class = c == '[' || (in_class && c != ']');
      out.push_back(c);
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's' && in_class) {
      out.append(kWhiteSpace);
    } else if (escaped == 's' || escaped == 'S') {
      out.append(escaped == 's' ? "[" : "[^").append(kWhiteSpace).append("]");
    } else {
      out.append({c, escaped});
    }
  }
  return out;
}

}  // namespace

class Regex::Scratch {
 public:
  explicit Scratch(const pcre2_code* code)
      : data_(pcre2_match_data_create_from_pattern(code, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    if (data_ == nullptr || context_ == nullptr) {
      pcre2_match_data_free(data_);
      pcre2_match_context_free(context_);
      fail(ErrorCode::out_of_memory, "tokenizer: no memory for matching");
    }
    pcre2_set_match_limit(context_, kMatchLimit);
    pcre2_set_heap_limit(context_, kHeapLimitKib);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    pcre2_match_data_free(data_);
    pcre2_match_context_free(context_);
  }

  pcre2_match_data* data() const { return data_; }
  pcre2_match_context* context() const { return context_; }

 private:
  pcre2_match_data* data_;
  pcre2_match_context* context_;
};

void Regex::ScratchDeleter::operator()(Scratch* scratch) const noexcept { delete scratch; }

void Regex::CodeDeleter::operator()(void* code) const noexcept {
  pcre2_code_free(static_cast<pcre2_code*>(code));
}

Regex::Regex(std::string_view pattern) {
  const std::string expanded = expand_white_space(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  require(code != nullptr, ErrorCode::internal, "regular expression {}: error {} at byte {}",
          expanded, error, offset);
  code_.reset(code);
  // Fails where the system forbids executable memory; the interpreter serves then.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

Regex::ScratchPtr Regex::make_scratch() const {
  return ScratchPtr(new Scratch(static_cast<const pcre2_code*>(code_.get())));
}

void Regex::split(std::string_view text, Scratch& scratch, const PieceSink& sink) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto match = [&](size_t at, uint32_t options) {
    return pcre2_match(code, subject, text.size(), at, options | PCRE2_NO_UTF_CHECK, scratch.data(),
                       scratch.context());
  };
  size_t at = 0;
  while (at < text.size()) {
    int found = match(at, PCRE2_NOTEMPTY);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(at, PCRE2_NOTEMPTY | PCRE2_NO_JIT);
    if (found < 0) break;  // no further match, or a limit: the rest is one piece
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.data());
    if (range[0] > at) sink(text.substr(at, range[0] - at));
    sink(text.substr(range[0], range[1] - range[0]));
    at = range[1];
  }
  if (at < text.size()) sink(text.substr(at));
}

}  // namespace qllm
