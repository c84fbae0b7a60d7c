// A sequence in a file: docs/formats.md has the layout.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/kv_cache.h"

namespace qllm {

/// What a saved sequence belongs to. Only equal ones read each other's files.
struct SequenceOwner {
  uint64_t model = 0;  // digest of graph, scheme and weights (model_digest.h)
  int64_t vocab = 0;
};

/// Writes the tokens of `kv` and their keys and values: beside the path, to the disk, then in its
/// place. Throws io.
void save_sequence(const std::string& path, const SequenceOwner& owner, const KvCache& kv);

/// Reads a file into a new sequence on `pool`. Throws not_found, io; bad_format for what is damaged
/// or no such file; invalid_argument for another model, scheme or KV format; context_full and
/// out_of_memory where there is no room. Content from a file is never shared with other sequences:
/// whoever can write the file could put words into their mouths.
std::unique_ptr<KvCache> restore_sequence(const std::string& path, const SequenceOwner& owner,
                                          std::shared_ptr<KvPool> pool, int64_t capacity);

}  // namespace qllm
