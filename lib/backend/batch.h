// What all backends do with a batch: check it against the limits of a plan, make room in its
// caches, find the storage behind them, and append to them.
#pragma once

#include <string_view>

#include "backend/backend.h"
#include "backend/profile.h"

namespace qllm {

/// What a graph takes from a batch and gives back.
struct StepShape {
  int64_t vocab = 0;        // tokens are below it; 0: their rows come from elsewhere
  int64_t input_width = 0;  // of the InputOp; 0: it has none
  Rows result_rows = Rows::outputs;
  int64_t result_width = 0;
};

StepShape step_shape(const Graph& graph);

/// Values of the result of a batch.
int64_t result_size(const Batch& batch, const StepShape& shape);

/// Throws invalid_argument or context_full, before anything is changed, for a batch that breaks the
/// contract of Plan::execute; `room` values are there for the result.
void check_batch(const Batch& batch, const PlanLimits& limits, const StepShape& shape,
                 int64_t room);

/// Makes room in the caches of all slices, or throws and leaves them as they were. Nothing for a
/// part of a step.
void reserve_room(const Batch& batch);

/// What a recorder notes of it, before it runs.
ProfileStep step_of(const Batch& batch);

/// The tokens of a step that has run now belong to its sequences; likewise.
void advance(const Batch& batch);

[[noreturn]] void refuse_storage(std::string_view device);
/// The storage behind a cache of the batch, of its part. Throws invalid_argument where it is not
/// one of `device`.
template <typename Storage>
Storage& storage_of(const Batch& batch, const KvCache& kv, std::string_view device) {
  auto* const storage = dynamic_cast<Storage*>(kv.pool().storage().part(batch.part));
  if (storage == nullptr) refuse_storage(device);
  return *storage;
}

}  // namespace qllm
