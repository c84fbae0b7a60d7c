#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <optional>
#include <utility>

#include "backend/kv_cache.h"
#include "core/error.h"
#include "engine/loaded_model.h"
#include "engine/sampler.h"
#include "qllm/qllm.hpp"
#include "text/detokenizer.h"

namespace qllm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t choose_context(const ModelConfig& config, int64_t asked) {
  require(asked >= 0, ErrorCode::invalid_argument, "context: {} is negative", asked);
  require(asked <= config.context_length, ErrorCode::invalid_argument,
          "context: {} tokens asked, the model was trained for {}", asked, config.context_length);
  return asked > 0 ? asked : std::min(config.context_length, kDefaultContext);
}

}  // namespace

class SessionImpl {
 public:
  SessionImpl(std::shared_ptr<ModelImpl> model, int64_t max_context)
      : model_(std::move(model)),
        replica_(&model_->freest_replica()),
        kv_(std::make_unique<KvCache>(replica_->kv_pool,
                                      choose_context(model_->config, max_context))) {
    logits_.resize(static_cast<size_t>(model_->config.vocab_size));
    number_ = ++model_->sessions_made;
    ++replica_->sessions;
  }
  ~SessionImpl() { --replica_->sessions; }
  SessionImpl(const SessionImpl&) = delete;
  SessionImpl& operator=(const SessionImpl&) = delete;

  GenerateResult generate(std::span<const int32_t> ids, const GenerateOptions& options,
                          const Session::TextFn& on_text);
  void evaluate(std::span<const int32_t> ids, const Session::LogitsFn& on_logits);
  void prefill(std::span<const int32_t> ids);
  void decode(int32_t id) {
    const EngineTimer timer = timed(EngineWork::decode, 1);
    step({&id, 1}, kLast, logits_);
  }

  static void decode_together(std::span<SessionImpl* const> sessions, std::span<const int32_t> ids,
                              std::span<float> logits);

  ModelImpl& model() const { return *model_; }
  /// Of what is done while it lives; `tokens` of it.
  EngineTimer timed(EngineWork work, size_t tokens) const {
    return {model_->log, number_, work, static_cast<int64_t>(tokens)};
  }
  const KvCache& kv() const { return *kv_; }
  void truncate(int64_t position) {
    require(position >= 0 && position <= kv_->length(), ErrorCode::invalid_argument,
            "truncate to {} tokens: the session holds {}", position, kv_->length());
    kv_->truncate(position);
  }
  void save(const std::string& path) const { save_sequence(path, model_->owner(), *kv_); }
  void restore(const std::string& path) {
    // What the session held stays unless all of the file is good.
    kv_ = restore_sequence(path, model_->owner(), replica_->kv_pool, kv_->capacity());
  }
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }

 private:
  static constexpr bool kLast = true;

  /// Of decode_together: the sessions of one replica.
  struct Group {
    std::vector<size_t> of;  // indices into the call's sessions
    std::vector<int32_t> ids;
    std::vector<BatchSlice> slices;
    std::vector<int32_t> outputs;
    std::vector<float> logits;
  };
  static void decode_by_replica(std::span<SessionImpl* const> sessions,
                                std::span<const int32_t> ids, std::span<float> logits);

  bool take_cancel() noexcept { return cancelled_.exchange(false, std::memory_order_relaxed); }
  void step(std::span<const int32_t> ids, bool want_last, std::span<float> logits);
  void check_ids(std::span<const int32_t> ids) const;
  bool room_for_one();
  bool prefill_prompt(std::span<const int32_t> ids);
  FinishReason decode_loop(Sampler& sampler, const GenerateOptions& options,
                           const Session::TextFn& on_text, Clock::time_point start,
                           GenerateResult* result);

  std::shared_ptr<ModelImpl> model_;
  Replica* replica_;    // where its keys and values are
  int32_t number_ = 0;  // of the model's sessions, from 1
  std::unique_ptr<KvCache> kv_;
  std::vector<float> logits_;  // [vocab] of the last token
  std::atomic<bool> cancelled_{false};
};

void SessionImpl::step(std::span<const int32_t> ids, bool want_last, std::span<float> logits) {
  const BatchSlice slice{kv_.get(), 0, static_cast<int64_t>(ids.size())};
  const auto last = static_cast<int32_t>(ids.size()) - 1;
  const std::span<const int32_t> outputs(&last, want_last ? 1 : 0);
  replica_->execute({ids, {&slice, 1}, outputs}, logits);
}

void SessionImpl::decode_together(std::span<SessionImpl* const> sessions,
                                  std::span<const int32_t> ids, std::span<float> logits) {
  const auto count = static_cast<int64_t>(sessions.size());
  ModelImpl& model = *sessions.front()->model_;
  require(static_cast<int64_t>(logits.size()) == count * model.config.vocab_size,
          ErrorCode::invalid_argument, "decode_together: room for {} logits, expected {} x {}",
          logits.size(), count, model.config.vocab_size);
  std::vector<BatchSlice> slices;
  std::vector<int32_t> outputs;
  for (int64_t i = 0; i < count; ++i) {
    SessionImpl& s = *sessions[static_cast<size_t>(i)];
    require(s.model_.get() == &model, ErrorCode::invalid_argument,
            "decode_together: session {} belongs to another model", i);
    for (const BatchSlice& other : slices) {
      require(other.kv != s.kv_.get(), ErrorCode::invalid_argument,
              "decode_together: session {} is there twice", i);
    }
    slices.push_back({s.kv_.get(), i, 1});
    outputs.push_back(static_cast<int32_t>(i));
  }
  const auto elsewhere = [&](const SessionImpl* s) {
    return s->replica_ != sessions.front()->replica_;
  };
  const int64_t begin = model.log.on() ? profile_now() : 0;
  if (std::none_of(sessions.begin(), sessions.end(), elsewhere)) {
    sessions.front()->replica_->execute({ids, slices, outputs}, logits);
  } else {
    decode_by_replica(sessions, ids, logits);
  }
  if (begin == 0) return;
  const int64_t end = profile_now();
  for (const SessionImpl* s : sessions) {
    model.log.add({begin, end, 1, s->number_, EngineWork::decode});
  }
}

/// One step of each team that has some of the sessions, all at the same time.
void SessionImpl::decode_by_replica(std::span<SessionImpl* const> sessions,
                                    std::span<const int32_t> ids, std::span<float> logits) {
  for (SessionImpl* s : sessions) s->kv_->reserve(1);  // before anything is changed
  std::map<Replica*, Group> groups;
  for (size_t i = 0; i < sessions.size(); ++i) {
    Group& group = groups[sessions[i]->replica_];
    const auto at = static_cast<int64_t>(group.of.size());
    group.slices.push_back({sessions[i]->kv_.get(), at, 1});
    group.outputs.push_back(static_cast<int32_t>(at));
    group.ids.push_back(ids[i]);
    group.of.push_back(i);
  }
  const auto vocab = static_cast<size_t>(sessions.front()->model_->config.vocab_size);
  std::vector<std::future<void>> steps;
  for (auto& [replica, group] : groups) {
    steps.push_back(std::async(std::launch::async, [replica = replica, &group = group, vocab] {
      group.logits.resize(group.of.size() * vocab);
      replica->execute({group.ids, group.slices, group.outputs}, group.logits);
    }));
  }
  for (std::future<void>& step : steps) step.wait();
  for (std::future<void>& step : steps) step.get();
  for (const auto& [replica, group] : groups) {
    for (size_t i = 0; i < group.of.size(); ++i) {
      std::copy_n(group.logits.data() + i * vocab, vocab, logits.data() + group.of[i] * vocab);
    }
  }
}

void SessionImpl::check_ids(std::span<const int32_t> ids) const {
  require(!ids.empty(), ErrorCode::invalid_argument, "the prompt is empty");
  require(static_cast<int64_t>(ids.size()) <= kv_->capacity(), ErrorCode::context_full,
          "the prompt of {} tokens is longer than the context of {}", ids.size(), kv_->capacity());
}

bool SessionImpl::prefill_prompt(std::span<const int32_t> ids) {
  const auto most = static_cast<size_t>(model_->limits.max_tokens);
  while (!ids.empty()) {
    if (take_cancel()) return false;
    const auto now = ids.first(std::min(most, ids.size()));
    ids = ids.subspan(now.size());
    const EngineTimer timer = timed(EngineWork::prefill, now.size());
    step(now, ids.empty(), logits_);
  }
  return true;
}

GenerateResult SessionImpl::generate(std::span<const int32_t> ids, const GenerateOptions& options,
                                     const Session::TextFn& on_text) {
  const Clock::time_point start = Clock::now();
  check_ids(ids);
  Sampler sampler(options, model_->config.vocab_size);
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(ids.size());
  // At least the last token is computed: its logits are wanted.
  result.reused_tokens = kv_->reuse_prefix(ids.first(ids.size() - 1));
  if (prefill_prompt(ids.subspan(static_cast<size_t>(result.reused_tokens)))) {
    result.finish_reason = decode_loop(sampler, options, on_text, start, &result);
  } else {
    result.finish_reason = FinishReason::cancelled;
  }
  take_cancel();  // one that came with the last token must not stop the next call
  return result;
}

/// Whether the next step finds room in the context and in the pool that all sessions share.
bool SessionImpl::room_for_one() {
  try {
    kv_->reserve(1);
    return true;
  } catch (const Error& e) {
    if (e.code() != ErrorCode::context_full && e.code() != ErrorCode::out_of_memory) throw;
    return false;
  }
}

FinishReason SessionImpl::decode_loop(Sampler& sampler, const GenerateOptions& options,
                                      const Session::TextFn& on_text, Clock::time_point start,
                                      GenerateResult* result) {
  const Tokenizer* tokenizer = model_->own_tokenizer.get();
  std::optional<StreamingDetokenizer> text;
  if (tokenizer != nullptr) text.emplace(*tokenizer);
  const auto emit = [&](const std::string& piece) {
    const EngineTimer timer = timed(EngineWork::emit, 1);
    result->text += piece;
    return piece.empty() || !on_text || on_text(piece);
  };
  const auto sample = [&] {
    const EngineTimer timer = timed(EngineWork::sample, 1);
    return sampler.sample(logits_, kv_->tokens());
  };
  FinishReason reason = FinishReason::length;
  Clock::time_point first = Clock::now();
  while (options.max_tokens < 0 || result->generated_tokens < options.max_tokens) {
    const int32_t id = sample();
    if (result->generated_tokens == 0) {
      first = Clock::now();
      result->ttft_s = std::chrono::duration<double>(first - start).count();
    }
    if (tokenizer != nullptr && !options.ignore_end && tokenizer->is_end(id)) {
      reason = FinishReason::stop;
      break;
    }
    result->ids.push_back(id);
    ++result->generated_tokens;
    if (text && !emit(text->push(id))) {
      reason = FinishReason::cancelled;
      break;
    }
    if (take_cancel()) {
      reason = FinishReason::cancelled;
      break;
    }
    if (result->generated_tokens == options.max_tokens) break;
    if (!room_for_one()) {
      reason = FinishReason::context_full;
      break;
    }
    decode(id);
  }
  result->decode_s = seconds_since(first);
  if (text && reason != FinishReason::cancelled) emit(text->finish());
  return reason;
}

void SessionImpl::evaluate(std::span<const int32_t> ids, const Session::LogitsFn& on_logits) {
  check_ids(ids);
  kv_->truncate(0);
  const int64_t vocab = model_->config.vocab_size;
  const int64_t most = model_->limits.max_outputs;
  std::vector<float> logits(static_cast<size_t>(most * vocab));
  std::vector<int32_t> outputs(static_cast<size_t>(most));
  for (int32_t i = 0; i < most; ++i) outputs[static_cast<size_t>(i)] = i;
  const auto total = static_cast<int64_t>(ids.size());
  for (int64_t first = 0; first < total; first += most) {
    require(!take_cancel(), ErrorCode::cancelled, "cancelled");
    const int64_t count = std::min(most, total - first);
    const auto now = ids.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    const BatchSlice slice{kv_.get(), 0, count};
    const EngineTimer timer = timed(EngineWork::prefill, now.size());
    replica_->execute({now, {&slice, 1}, std::span(outputs).first(now.size())}, logits);
    const auto ready = std::span<const float>(logits).first(static_cast<size_t>(count * vocab));
    if (!on_logits(first, count, ready)) return;
  }
}

void SessionImpl::prefill(std::span<const int32_t> ids) {
  require(!ids.empty(), ErrorCode::invalid_argument, "the prompt is empty");
  const auto room = kv_->capacity() - kv_->length();
  require(static_cast<int64_t>(ids.size()) <= room, ErrorCode::context_full,
          "{} tokens do not fit: {} of {} are held", ids.size(), kv_->length(), kv_->capacity());
  require(prefill_prompt(ids), ErrorCode::cancelled, "cancelled");
}

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::context_full:
      return "context_full";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return "unknown";
}

Session::Session(const Model& model, int64_t max_context)
    : impl_(std::make_unique<SessionImpl>(model.impl_, max_context)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

GenerateResult Session::generate(std::string_view prompt, const GenerateOptions& options,
                                 const TextFn& on_text) {
  require(!prompt.empty(), ErrorCode::invalid_argument, "the prompt is empty");
  const Tokenizer& tokenizer = impl_->model().tokenizer();
  const auto encode = [&] {
    EngineTimer timer = impl_->timed(EngineWork::tokenize, 0);
    auto ids = tokenizer.encode(prompt, {options.add_special, options.parse_special});
    timer.set_tokens(ids.size());
    return ids;
  };
  return impl_->generate(encode(), options, on_text);
}

GenerateResult Session::generate_ids(std::span<const int32_t> ids, const GenerateOptions& options,
                                     const TextFn& on_text) {
  return impl_->generate(ids, options, on_text);
}

void Session::evaluate(std::span<const int32_t> ids, const LogitsFn& on_logits) {
  impl_->evaluate(ids, on_logits);
}
void Session::prefill(std::span<const int32_t> ids) { impl_->prefill(ids); }
void Session::decode(int32_t id) { impl_->decode(id); }
void Session::decode_together(std::span<Session* const> sessions, std::span<const int32_t> ids,
                              std::span<float> logits) {
  require(!sessions.empty() && sessions.size() <= static_cast<size_t>(kMaxOutputs),
          ErrorCode::invalid_argument, "decode_together: {} sessions, expected 1 to {}",
          sessions.size(), kMaxOutputs);
  require(ids.size() == sessions.size(), ErrorCode::invalid_argument,
          "decode_together: {} ids for {} sessions", ids.size(), sessions.size());
  std::vector<SessionImpl*> impls;
  for (const Session* session : sessions) impls.push_back(session->impl_.get());
  SessionImpl::decode_together(impls, ids, logits);
}
void Session::save(const std::string& path) const { impl_->save(path); }
void Session::restore(const std::string& path) { impl_->restore(path); }
std::vector<int32_t> Session::tokens() const {
  const auto tokens = impl_->kv().tokens();
  return {tokens.begin(), tokens.end()};
}
int64_t Session::position() const { return impl_->kv().length(); }
int64_t Session::max_context() const { return impl_->kv().capacity(); }
void Session::reset() { impl_->truncate(0); }
void Session::truncate(int64_t position) { impl_->truncate(position); }
void Session::cancel() noexcept { impl_->cancel(); }

}  // namespace qllm
