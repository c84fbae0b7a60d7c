#include "backend/batch.h"

#include "core/error.h"

namespace qllm {
namespace {

/// Whoever cut a step has made room for it.
void check_room(const BatchSlice& slice) {
  const auto room = static_cast<int64_t>(slice.kv->blocks().size()) * kKvBlockTokens;
  require(slice.kv->length() + slice.count <= room, ErrorCode::invalid_argument,
          "batch: part of a step without room for its {} tokens", slice.count);
}

void check_slices(const Batch& batch, int64_t n_tokens) {
  int64_t next = 0;
  for (const BatchSlice& slice : batch.slices) {
    require(slice.kv != nullptr && slice.first == next && slice.count > 0,
            ErrorCode::invalid_argument, "batch: slices must cover the tokens in order");
    next += slice.count;
    require(slice.kv->length() + slice.count <= slice.kv->capacity(), ErrorCode::context_full,
            "context is full: {} tokens held and {} more do not fit into {}", slice.kv->length(),
            slice.count, slice.kv->capacity());
    if (batch.part != kWholeStep) check_room(slice);
  }
  require(next == n_tokens, ErrorCode::invalid_argument, "batch: slices hold {} tokens of {}", next,
          n_tokens);
}

struct ShapeOf {
  const Graph& graph;
  StepShape* shape;

  void operator()(const InputOp& op) const { shape->input_width = graph.value(op.out).width; }
  void operator()(const EmbedOp& op) const { shape->vocab = graph.weight(op.table).n; }
  template <typename T>
  void operator()(const T&) const {}
};

}  // namespace

StepShape step_shape(const Graph& graph) {
  const Value& result = graph.value(graph.logits);
  StepShape shape{0, 0, result.rows, result.width};
  for (const Op& op : graph.ops) std::visit(ShapeOf{graph, &shape}, op);
  return shape;
}

int64_t result_size(const Batch& batch, const StepShape& shape) {
  const size_t rows =
      shape.result_rows == Rows::tokens ? batch.tokens.size() : batch.outputs.size();
  return static_cast<int64_t>(rows) * shape.result_width;
}

void check_batch(const Batch& batch, const PlanLimits& limits, const StepShape& shape,
                 int64_t room) {
  const auto n_tokens = static_cast<int64_t>(batch.tokens.size());
  const auto n_outputs = static_cast<int64_t>(batch.outputs.size());
  require(n_tokens > 0 && n_tokens <= limits.max_tokens, ErrorCode::invalid_argument,
          "batch: {} tokens, a step carries 1 to {}", n_tokens, limits.max_tokens);
  require(n_outputs <= limits.max_outputs, ErrorCode::invalid_argument,
          "batch: {} outputs, room for {}", n_outputs, limits.max_outputs);
  require(room >= result_size(batch, shape), ErrorCode::invalid_argument,
          "batch: a result of {} values, room for {}", result_size(batch, shape), room);
  const auto n_inputs = static_cast<int64_t>(batch.inputs.size());
  require(n_inputs == n_tokens * shape.input_width, ErrorCode::invalid_argument,
          "batch: {} values of input, expected {} x {}", n_inputs, n_tokens, shape.input_width);
  for (int32_t token : batch.tokens) {
    require(token >= 0 && (token < shape.vocab || shape.vocab == 0), ErrorCode::invalid_argument,
            "batch: token {} is outside the vocabulary of {}", token, shape.vocab);
  }
  for (int32_t row : batch.outputs) {
    require(row >= 0 && row < n_tokens, ErrorCode::invalid_argument,
            "batch: output row {} of {} tokens", row, n_tokens);
  }
  check_slices(batch, n_tokens);
}

void reserve_room(const Batch& batch) {
  if (batch.part != kWholeStep) return;
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

void refuse_storage(std::string_view device) {
  fail(ErrorCode::invalid_argument, "{}: a KV cache of another backend", device);
}

ProfileStep step_of(const Batch& batch) {
  ProfileStep step;
  step.tokens = static_cast<int64_t>(batch.tokens.size());
  step.outputs = static_cast<int64_t>(batch.outputs.size());
  for (const BatchSlice& slice : batch.slices) step.past += slice.kv->length();
  return step;
}

void advance(const Batch& batch) {
  if (batch.part != kWholeStep) return;
  for (const BatchSlice& slice : batch.slices) {
    slice.kv->advance(
        batch.tokens.subspan(static_cast<size_t>(slice.first), static_cast<size_t>(slice.count)));
  }
}

}  // namespace qllm
