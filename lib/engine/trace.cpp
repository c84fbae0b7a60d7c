#include "qllm/trace.hpp"

#include <deque>
#include <mutex>
#include <new>
#include <utility>

#include "backend/profile.h"
#include "core/error.h"
#include "engine/loaded_model.h"
#include "engine/trace_json.h"

namespace qllm {
namespace {

constexpr int64_t kLeastMemory = int64_t{64} << 10;
/// Of the memory, for what sessions do: a few spans a step, beside hundreds of its ops.
constexpr int64_t kEngineShare = 16;

}  // namespace

struct Trace::Impl {
  Impl(std::shared_ptr<ModelImpl> of_model, const TraceOptions& options);
  ~Impl() { stop(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void record(Replica& replica, const RecorderLimits& limits);
  void stop() noexcept;
  TraceInfo info() const;

  std::shared_ptr<ModelImpl> model;
  int64_t begin_ns = 0;
  std::deque<StepRecorder> recorders;  // of the first replicas, in order; all but while it begins
  bool is_on = true;
  bool is_logging = false;
  EngineLog::Taken engine;  // when the recording has ended
};

Trace::Impl::Impl(std::shared_ptr<ModelImpl> of_model, const TraceOptions& options)
    : model(std::move(of_model)) {
  require(options.memory_bytes >= kLeastMemory, ErrorCode::invalid_argument,
          "trace: {} bytes of memory, expected at least {}", options.memory_bytes, kLeastMemory);
  const int64_t for_engine = options.memory_bytes / kEngineShare;
  RecorderLimits limits;
  limits.bytes = (options.memory_bytes - for_engine) / static_cast<int64_t>(model->replicas.size());
  limits.steps = limits.bytes;  // no limit of its own
  try {
    for (Replica& replica : model->replicas) record(replica, limits);
    model->log.start(for_engine / static_cast<int64_t>(sizeof(EngineSpan)));
    is_logging = true;
    begin_ns = profile_now();
  } catch (const std::bad_alloc&) {
    stop();
    fail(ErrorCode::out_of_memory, "trace: no memory for {} bytes", options.memory_bytes);
  } catch (...) {
    stop();
    throw;
  }
}

void Trace::Impl::record(Replica& replica, const RecorderLimits& limits) {
  recorders.emplace_back(limits);
  try {
    replica.set_recorder(&recorders.back());
  } catch (...) {
    recorders.pop_back();  // it is not there, and stop() must leave alone who is
    throw;
  }
}

void Trace::Impl::stop() noexcept {
  if (!is_on) return;
  is_on = false;
  for (size_t i = 0; i < recorders.size(); ++i) model->replicas[i].set_recorder(nullptr);
  if (is_logging) engine = model->log.stop();
}

TraceInfo Trace::Impl::info() const {
  TraceInfo info;
  info.spans = is_on ? model->log.size() : static_cast<int64_t>(engine.spans.size());
  info.dropped_spans = is_on ? model->log.dropped() : engine.dropped;
  for (size_t i = 0; i < recorders.size(); ++i) {
    const std::lock_guard lock(model->replicas[i].plan_mutex);
    info.steps += static_cast<int64_t>(recorders[i].steps().size());
    info.dropped_steps += recorders[i].dropped_steps();
    info.dropped_spans += recorders[i].dropped_spans();
    for (const ProfileTeam& team : recorders[i].teams()) {
      for (const SpanTrack& track : team.tracks) {
        info.spans += static_cast<int64_t>(track.spans().size());
      }
    }
  }
  return info;
}

Trace::Trace(const Model& model, const TraceOptions& options)
    : impl_(std::make_unique<Impl>(model.impl_, options)) {}
Trace::~Trace() = default;
Trace::Trace(Trace&&) noexcept = default;
Trace& Trace::operator=(Trace&&) noexcept = default;

void Trace::stop() { impl_->stop(); }
TraceInfo Trace::info() const { return impl_->info(); }

void Trace::write(const WriteFn& on_piece) {
  impl_->stop();
  TraceData data;
  data.model = impl_->model->info.name;
  data.begin_ns = impl_->begin_ns;
  data.info = impl_->info();
  for (const StepRecorder& recorder : impl_->recorders) data.teams.push_back(&recorder);
  data.engine = impl_->engine.spans;
  write_trace(data, on_piece);
}

}  // namespace qllm
