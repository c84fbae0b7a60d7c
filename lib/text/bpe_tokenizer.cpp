#include "text/bpe_tokenizer.h"

#include <queue>
#include <utility>

#include "core/error.h"
#include "text/byte_alphabet.h"

namespace qllm {
namespace {

// Words up to this many bytes are remembered within one call of encode; longer ones hardly recur.
constexpr size_t kMaxCachedWord = 48;
// Symbols are counted in 32 bits.
constexpr size_t kMaxWord = size_t{1} << 30;

uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

BpeTokenizer::BpeTokenizer(Vocab source)
    : TokenizerBase(std::move(source)), pretokenizer_(vocab().pre), ids_(make_pieces()) {
  // A user-defined token is spelt as it stands in the text; a token of merges has the first claim.
  for (const bool user_defined : {false, true}) {
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (!is_mergeable(i) || user_defined != (types()[i] == TokenType::user_defined)) continue;
      // What is not in the alphabet cannot come of bytes: it would hide the token that does.
      if (!user_defined && !is_in_alphabet(vocab().tokens[i])) continue;
      ids_.add(static_cast<int32_t>(i));
    }
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    byte_ids_[byte] = ids_.find(std::string_view(&c, 1));
  }
  const int32_t unk = vocab().unk;
  if (unk >= 0 && types()[static_cast<size_t>(unk)] == TokenType::unknown) unknown_ = unk;
  read_merges();
}

const std::vector<std::string>& BpeTokenizer::make_pieces() {
  const auto& tokens = vocab().tokens;
  pieces_.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool literal = types()[i] == TokenType::control || types()[i] == TokenType::unknown ||
                         types()[i] == TokenType::user_defined;
    pieces_.push_back(literal ? tokens[i] : bytes_from_alphabet(tokens[i]));
  }
  return pieces_;
}

void BpeTokenizer::read_merges() {
  const auto& merges = vocab().merges;
  merges_.reset(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = merge.find(' ', 1);
    require(space != std::string_view::npos && space + 1 < merge.size(), ErrorCode::bad_format,
            "tokenizer: merge {}: expected two tokens with a space between, found '{}'", rank,
            merge);
    const auto id_of = [&](const std::string& bytes) {
      const int32_t id = ids_.find(bytes);
      if (id < 0) {
        fail(ErrorCode::bad_format, "tokenizer: merge {} ('{}'): '{}' is not in the vocabulary",
             rank, merge, alphabet_from_bytes(bytes));
      }
      return id;
    };
    const std::string left = bytes_from_alphabet(merge.substr(0, space));
    const std::string right = bytes_from_alphabet(merge.substr(space + 1));
    const Merge entry{static_cast<uint32_t>(rank), id_of(left + right)};
    merges_.add(pair_key(id_of(left), id_of(right)), entry);
  }
}

const BpeTokenizer::Merge* BpeTokenizer::find_merge(int32_t left, int32_t right) const {
  return merges_.find(pair_key(left, right));
}

// One word on its way from bytes to tokens: a linked list of symbols, and a heap of the pairs that
// can be merged, best first. O(n log n) in the bytes of the word.
struct BpeTokenizer::Merger {
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Symbol {
    int32_t id;  // -1: a byte without a token
    uint32_t previous, next;
    bool gone = false;
  };
  struct Candidate {
    uint32_t rank, left;
    int32_t left_id, right_id;
    int32_t merged;
    bool operator<(const Candidate& other) const {  // the heap gives the greatest first
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  Merger(const BpeTokenizer& owner, std::string_view word) : tokenizer(owner) {
    const auto n = static_cast<uint32_t>(word.size());
    symbols.reserve(n);
    for (uint32_t i = 0; i < n; ++i) {
      const int32_t id = owner.byte_ids_[static_cast<uint8_t>(word[i])];
      symbols.push_back({id, i == 0 ? kNone : i - 1, i + 1 == n ? kNone : i + 1});
    }
  }

  void propose(uint32_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const int32_t left_id = symbols[left].id;
    const int32_t right_id = symbols[symbols[left].next].id;
    if (left_id < 0 || right_id < 0) return;
    const Merge* merge = tokenizer.find_merge(left_id, right_id);
    if (merge != nullptr) queue.push({merge->rank, left, left_id, right_id, merge->id});
  }

  bool is_current(const Candidate& candidate) const {
    const Symbol& left = symbols[candidate.left];
    return !left.gone && left.id == candidate.left_id && left.next != kNone &&
           symbols[left.next].id == candidate.right_id;
  }

  void run() {
    for (uint32_t i = 0; i + 1 < symbols.size(); ++i) propose(i);
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      if (!is_current(best)) continue;
      Symbol& left = symbols[best.left];
      Symbol& right = symbols[left.next];
      left.id = best.merged;
      right.gone = true;
      left.next = right.next;
      if (left.next != kNone) symbols[left.next].previous = best.left;
      propose(left.previous);
      propose(best.left);
    }
  }

  const BpeTokenizer& tokenizer;
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate> queue;
};

void BpeTokenizer::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  if (pretokenizer_.ignore_merges()) {
    const int32_t whole = ids_.find(word);
    if (whole >= 0) return ids.push_back(whole);
  }
  for (; word.size() > kMaxWord; word.remove_prefix(kMaxWord)) {
    encode_word(word.substr(0, kMaxWord), ids);
  }
  Merger merger(*this, word);
  merger.run();
  for (uint32_t i = 0; i != Merger::kNone; i = merger.symbols[i].next) {
    const int32_t id = merger.symbols[i].id >= 0 ? merger.symbols[i].id : unknown_;
    if (id >= 0) ids.push_back(id);
  }
}

namespace {

// Where in the ids of this call the ids of a word stand for the first time.
struct WordPlace {
  size_t begin;
  size_t count;
};

}  // namespace

// Most words of a text have been seen before in the same text.
struct BpeTokenizer::WordCache final : CallState {
  std::unordered_map<std::string_view, WordPlace> places;  // views into the text
};

std::unique_ptr<TokenizerBase::CallState> BpeTokenizer::new_state() const {
  return std::make_unique<WordCache>();
}

void BpeTokenizer::encode_text(std::string_view text, bool /*after_special*/, CallState& state,
                               std::vector<int32_t>& ids) const {
  auto& places = static_cast<WordCache&>(state).places;
  pretokenizer_.split(text, [&](std::string_view word) {
    if (word.size() > kMaxCachedWord) return encode_word(word, ids);
    const auto [place, is_new] = places.try_emplace(word, WordPlace{ids.size(), 0});
    if (is_new) {
      encode_word(word, ids);
      place->second.count = ids.size() - place->second.begin;
      return;
    }
    for (size_t i = 0; i < place->second.count; ++i) {
      const int32_t id = ids[place->second.begin + i];  // push_back may move ids
      ids.push_back(id);
    }
  });
}

}  // namespace qllm
