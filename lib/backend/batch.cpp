#include "backend/batch.h"

#include "core/error.h"

namespace qllm {
namespace {

void check_slices(const Batch& batch, int64_t n_tokens) {
  int64_t next = 0;
  for (const BatchSlice& slice : batch.slices) {
    require(slice.kv != nullptr && slice.first == next && slice.count > 0,
            ErrorCode::invalid_argument, "batch: slices must cover the tokens in order");
    next += slice.count;
    require(slice.kv->length() + slice.count <= slice.kv->capacity(), ErrorCode::context_full,
            "context is full: {} tokens held and {} more do not fit into {}", slice.kv->length(),
            slice.count, slice.kv->capacity());
  }
  require(next == n_tokens, ErrorCode::invalid_argument, "batch: slices hold {} tokens of {}", next,
          n_tokens);
}

}  // namespace

void check_batch(const Batch& batch, const PlanLimits& limits, int64_t vocab, int64_t logits_size) {
  const auto n_tokens = static_cast<int64_t>(batch.tokens.size());
  const auto n_outputs = static_cast<int64_t>(batch.outputs.size());
  require(n_tokens > 0 && n_tokens <= limits.max_tokens, ErrorCode::invalid_argument,
          "batch: {} tokens, a step carries 1 to {}", n_tokens, limits.max_tokens);
  require(n_outputs <= limits.max_outputs && logits_size >= n_outputs * vocab,
          ErrorCode::invalid_argument, "batch: {} outputs, room for {}", n_outputs,
          limits.max_outputs);
  for (int32_t token : batch.tokens) {
    require(token >= 0 && token < vocab, ErrorCode::invalid_argument,
            "batch: token {} is outside the vocabulary of {}", token, vocab);
  }
  for (int32_t row : batch.outputs) {
    require(row >= 0 && row < n_tokens, ErrorCode::invalid_argument,
            "batch: output row {} of {} tokens", row, n_tokens);
  }
  check_slices(batch, n_tokens);
}

void reserve_room(const Batch& batch) {
  size_t done = 0;
  try {
    for (; done < batch.slices.size(); ++done) {
      batch.slices[done].kv->reserve(batch.slices[done].count);
    }
  } catch (...) {
    // What was reserved for the others goes back.
    for (const BatchSlice& slice : batch.slices.first(done)) slice.kv->truncate(slice.kv->length());
    throw;
  }
}

void advance(const Batch& batch) {
  for (const BatchSlice& slice : batch.slices) {
    slice.kv->advance(
        batch.tokens.subspan(static_cast<size_t>(slice.first), static_cast<size_t>(slice.count)));
  }
}

}  // namespace qllm
