// What all backends do with a batch: check it against the limits of a plan, make room in its
// caches, and append to them.
#pragma once

#include "backend/backend.h"

namespace qllm {

/// Throws invalid_argument or context_full, before anything is changed, for a batch that breaks the
/// contract of Plan::execute. `logits_width` is the vocabulary's size.
void check_batch(const Batch& batch, const PlanLimits& limits, int64_t vocab, int64_t logits_size);

/// Makes room in the caches of all slices, or throws and leaves them as they were.
void reserve_room(const Batch& batch);

/// The tokens of a step that has run now belong to its sequences.
void advance(const Batch& batch);

}  // namespace qllm
