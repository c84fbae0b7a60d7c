// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocab.h"

namespace qllm {

struct EncodeOptions {
  bool add_special = true;     // bos / eos as the vocabulary says
  bool parse_special = false;  // recognise control tokens written out in the text
};

/// Immutable after construction; safe for many threads. The text need not be valid UTF-8: bytes
/// that are not are encoded byte by byte where the vocabulary can, else as unk; nothing throws for
/// it.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::vector<int32_t> encode(std::string_view text,
                                      const EncodeOptions& options) const = 0;
  /// The bytes of one token; control tokens give "" unless `special`. Throws invalid_argument for
  /// an id outside the vocabulary. A single token may be part of a UTF-8 sequence.
  virtual std::string piece(int32_t id, bool special = false) const = 0;
  /// All pieces end to end; for spm the space that encode put before the first word is taken off.
  virtual std::string decode(std::span<const int32_t> ids, bool special = false) const = 0;
  virtual const Vocab& vocab() const = 0;
  /// True for eos, eot and the other tokens that end an answer.
  virtual bool is_end(int32_t id) const = 0;
};

/// Throws bad_format / unsupported, naming what is wrong, for a vocabulary that does not hold
/// together (ids out of range, unknown `pre`, merges of unknown tokens, …).
std::unique_ptr<Tokenizer> make_tokenizer(Vocab vocab);

}  // namespace qllm
