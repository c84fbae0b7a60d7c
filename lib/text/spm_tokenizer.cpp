#include "text/spm_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <queue>
#include <utility>

#include "text/utf8.h"

namespace qllm {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
// Symbols are counted in 32 bits; a text this long is cut.
constexpr size_t kMaxText = size_t{1} << 30;

std::string escape_spaces(std::string_view text, bool prefix) {
  std::string escaped;
  escaped.reserve(text.size() + text.size() / 2 + kSpaceMark.size());
  if (prefix) escaped.append(kSpaceMark);
  for (const char c : text) {
    if (c == ' ') {
      escaped.append(kSpaceMark);
    } else {
      escaped.push_back(c);
    }
  }
  return escaped;
}

std::string unescape_spaces(std::string_view token) {
  std::string text;
  for (size_t at = 0; at < token.size();) {
    const bool space = token.substr(at).starts_with(kSpaceMark);
    text.push_back(space ? ' ' : token[at]);
    at += space ? kSpaceMark.size() : 1;
  }
  return text;
}

// The byte that "<0x0A>" names, or -1.
int named_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  int value = -1;
  const char* end = token.data() + 5;
  const auto [stop, error] = std::from_chars(token.data() + 3, end, value, 16);
  return error == std::errc() && stop == end && value >= 0 ? value : -1;
}

}  // namespace

SpmTokenizer::SpmTokenizer(Vocab source) : TokenizerBase(std::move(source)), ids_(vocab().tokens) {
  byte_ids_.fill(-1);
  const auto& tokens = vocab().tokens;
  pieces_.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int byte = types()[i] == TokenType::byte ? named_byte(tokens[i]) : -1;
    const bool plain = types()[i] == TokenType::normal || types()[i] == TokenType::unused ||
                       types()[i] == TokenType::undefined;
    pieces_.push_back(byte >= 0 ? std::string(1, static_cast<char>(byte))
                      : plain   ? unescape_spaces(tokens[i])
                                : tokens[i]);
    if (byte >= 0 && byte_ids_[static_cast<size_t>(byte)] < 0) {
      byte_ids_[static_cast<size_t>(byte)] = static_cast<int32_t>(i);
    }
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!is_mergeable(i)) continue;
    ids_.add(static_cast<int32_t>(i));
    longest_ = std::max(longest_, tokens[i].size());
  }
}

int32_t SpmTokenizer::find(std::string_view escaped) const {
  if (escaped.size() > longest_) return -1;
  return ids_.find(escaped);
}

// The text as a linked list of symbols, and a heap of the neighbours that make a token together.
// O(n log n) in the code points of the text.
struct SpmTokenizer::Merger {
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Symbol {
    uint32_t begin, size;  // bytes of the text; size 0: merged into the one before
    uint32_t previous, next;
  };
  struct Candidate {
    float score;
    uint32_t left, size;
    bool operator<(const Candidate& other) const {  // the heap gives the greatest first
      return score != other.score ? score < other.score : left > other.left;
    }
  };

  Merger(const SpmTokenizer& owner, std::string_view escaped) : tokenizer(owner), text(escaped) {
    for (size_t at = 0; at < text.size();) {
      const Utf8Step step = utf8_step(text.substr(at));
      const size_t size = step.state == Utf8State::valid ? step.length : 1;
      const auto index = static_cast<uint32_t>(symbols.size());
      symbols.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(size),
                         index == 0 ? kNone : index - 1, index + 1});
      at += size;
    }
    if (!symbols.empty()) symbols.back().next = kNone;
  }

  std::string_view bytes(const Symbol& symbol) const {
    return text.substr(symbol.begin, symbol.size);
  }

  void propose(uint32_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const uint32_t size = symbols[left].size + symbols[symbols[left].next].size;
    const int32_t id = tokenizer.find(text.substr(symbols[left].begin, size));
    if (id < 0) return;
    queue.push({tokenizer.vocab().scores[static_cast<size_t>(id)], left, size});
  }

  bool is_current(const Candidate& candidate) const {
    const Symbol& left = symbols[candidate.left];
    return left.size > 0 && left.next != kNone &&
           left.size + symbols[left.next].size == candidate.size;
  }

  void run() {
    for (uint32_t i = 0; i + 1 < symbols.size(); ++i) propose(i);
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      if (!is_current(best)) continue;
      Symbol& left = symbols[best.left];
      Symbol& right = symbols[left.next];
      left.size += right.size;
      right.size = 0;
      left.next = right.next;
      if (left.next != kNone) symbols[left.next].previous = best.left;
      propose(left.previous);
      propose(best.left);
    }
  }

  const SpmTokenizer& tokenizer;
  std::string_view text;
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate> queue;
};

void SpmTokenizer::append_bytes(std::string_view code_point, std::vector<int32_t>& ids) const {
  bool covered = true;
  for (const char c : code_point) covered = covered && byte_ids_[static_cast<uint8_t>(c)] >= 0;
  if (!covered) {
    if (vocab().unk >= 0) ids.push_back(vocab().unk);
    return;
  }
  for (const char c : code_point) ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
}

std::unique_ptr<TokenizerBase::CallState> SpmTokenizer::new_state() const {
  return std::make_unique<CallState>();
}

void SpmTokenizer::encode_text(std::string_view text, bool after_special, CallState& state,
                               std::vector<int32_t>& ids) const {
  for (; text.size() > kMaxText; text.remove_prefix(kMaxText), after_special = false) {
    encode_text(text.substr(0, kMaxText), after_special, state, ids);
  }
  const std::string escaped = escape_spaces(text, after_special && vocab().add_space_prefix);
  Merger merger(*this, escaped);
  merger.run();
  for (uint32_t i = 0; i != Merger::kNone; i = merger.symbols[i].next) {
    const std::string_view bytes = merger.bytes(merger.symbols[i]);
    const int32_t id = find(bytes);
    if (id >= 0) {
      ids.push_back(id);
    } else {
      append_bytes(bytes, ids);
    }
  }
}

}  // namespace qllm
