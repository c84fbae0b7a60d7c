// Checks shared by all backends: a batch against the limits of a plan and the room in its caches.
#pragma once

#include "backend/backend.h"

namespace qllm {

/// Throws invalid_argument or context_full, before anything is changed, for a batch that breaks the
/// contract of Plan::execute. `logits_width` is the vocabulary's size.
void check_batch(const Batch& batch, const PlanLimits& limits, int64_t vocab, int64_t logits_size);

}  // namespace qllm
