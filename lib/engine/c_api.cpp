// The C API over the C++ API: handles, callers' buffers, and one place where exceptions end.
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "engine/c_api_convert.h"
#include "engine/c_api_structs.h"
#include "qllm/qllm.h"
#include "qllm/qllm.hpp"
#include "qllm/trace.hpp"

struct qllm_model {
  qllm::Model model;
  qllm::ModelInfo info;  // owns the strings that qllm_model_get_info hands out
};

struct qllm_trace {
  qllm::Trace trace;
};

struct qllm_session {
  qllm::Model model;  // a session keeps its model alive
  qllm::Session session;
  int64_t vocab_size;
};

namespace {

using qllm::Error;
using qllm::ErrorCode;
using qllm::FinishReason;
using qllm::c::check_struct_size;
using qllm::c::to_c;
using qllm::c::to_cpp;
using qllm::c::write_struct;

static_assert(QLLM_OK == static_cast<int>(ErrorCode::ok));
static_assert(QLLM_INVALID_ARGUMENT == static_cast<int>(ErrorCode::invalid_argument));
static_assert(QLLM_NOT_FOUND == static_cast<int>(ErrorCode::not_found));
static_assert(QLLM_IO == static_cast<int>(ErrorCode::io));
static_assert(QLLM_BAD_FORMAT == static_cast<int>(ErrorCode::bad_format));
static_assert(QLLM_UNSUPPORTED == static_cast<int>(ErrorCode::unsupported));
static_assert(QLLM_OUT_OF_MEMORY == static_cast<int>(ErrorCode::out_of_memory));
static_assert(QLLM_CONTEXT_FULL == static_cast<int>(ErrorCode::context_full));
static_assert(QLLM_CANCELLED == static_cast<int>(ErrorCode::cancelled));
static_assert(QLLM_INTERNAL == static_cast<int>(ErrorCode::internal));
static_assert(QLLM_FINISH_STOP == static_cast<int>(FinishReason::stop));
static_assert(QLLM_FINISH_LENGTH == static_cast<int>(FinishReason::length));
static_assert(QLLM_FINISH_CONTEXT_FULL == static_cast<int>(FinishReason::context_full));
static_assert(QLLM_FINISH_CANCELLED == static_cast<int>(FinishReason::cancelled));

/// Fills `error` (may be null) and returns `code`. Cuts a long message between UTF-8 characters.
qllm_status report(qllm_error* error, qllm_status code, std::string_view message) noexcept {
  if (error == nullptr) return code;
  std::size_t length = message.size();
  if (length >= sizeof(error->message)) {
    length = sizeof(error->message) - 1;
    while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xC0U) == 0x80U) --length;
  }
  error->code = code;
  std::memcpy(error->message, message.data(), length);
  error->message[length] = '\0';
  return code;
}

/// Runs `body`; what it throws becomes a status. No exception passes.
template <typename Body>
qllm_status guarded(qllm_error* error, Body&& body) noexcept {
  try {
    body();
    return report(error, QLLM_OK, "");
  } catch (const Error& e) {
    return report(error, static_cast<qllm_status>(e.code()), e.what());
  } catch (const std::bad_alloc&) {
    return report(error, QLLM_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return report(error, QLLM_INTERNAL, e.what());
  } catch (...) {
    return report(error, QLLM_INTERNAL, "an exception of unknown type");
  }
}

void need(bool ok, const char* what) {
  if (!ok) throw Error(ErrorCode::invalid_argument, what);
}

void need_pointer(const void* pointer, const char* name) {
  if (pointer != nullptr) return;
  throw Error(ErrorCode::invalid_argument, std::string(name) + ": expected a pointer, found NULL");
}

/// [data, data+count); null is allowed where count is 0.
template <typename T>
std::span<const T> span_of(const T* data, std::size_t count, const char* name) {
  if (count > 0) need_pointer(data, name);
  need(count <= std::numeric_limits<std::ptrdiff_t>::max() / sizeof(T),
       "a count is beyond the address space");
  return {data, count};
}

std::string_view text_of(const char* data, std::size_t length, const char* name) {
  const auto bytes = span_of(data, length, name);
  return bytes.empty() ? std::string_view() : std::string_view(bytes.data(), bytes.size());
}

/// Copies `needed` elements to the caller's buffer as qllm.h describes: all or none, and none for a
/// query by NULL and 0.
template <typename T>
void copy_out(const T* data, std::size_t needed, T* buffer, std::size_t capacity) {
  if (buffer == nullptr && capacity == 0) return;
  need_pointer(buffer, "buffer");
  if (capacity < needed) {
    throw Error(ErrorCode::invalid_argument, "capacity: expected at least " +
                                                 std::to_string(needed) + ", found " +
                                                 std::to_string(capacity));
  }
  if (needed > 0) std::memcpy(buffer, data, needed * sizeof(T));
}

void copy_text(const std::string& text, char* buffer, std::size_t capacity, std::size_t* length) {
  *length = text.size();
  copy_out(text.c_str(), text.size() + 1, buffer, capacity);
}

template <typename T>
qllm_status init_struct(T* out, T (*defaults)(), std::size_t size, const char* name) noexcept {
  return guarded(nullptr, [&] {
    need_pointer(out, name);
    check_struct_size<T>(size, name);
    write_struct(out, defaults(), size);
  });
}

qllm_model* make_handle(qllm::Model model) {
  auto info = model.info();
  info.tensors = {};  // not handed out in C
  return new qllm_model{std::move(model), std::move(info)};
}

qllm::Session::TextFn text_callback(qllm_text_fn fn, void* user) {
  if (fn == nullptr) return {};
  return [fn, user](std::string_view text) {
    const std::string ended(text);
    return fn(ended.c_str(), ended.size(), user) == 0;
  };
}

/// What both generate calls share; `run(options, on_text)` does the work once all is checked.
template <typename Run>
void generate(qllm_session* session, const qllm_generate_options* options, qllm_text_fn on_text,
              void* user, qllm_generate_result* result, Run&& run) {
  need_pointer(session, "session");
  if (result != nullptr) {
    check_struct_size<qllm_generate_result>(result->struct_size, "qllm_generate_result");
  }
  const qllm::GenerateResult made = run(to_cpp(options), text_callback(on_text, user));
  if (result != nullptr) write_struct(result, to_c(made), result->struct_size);
}

}  // namespace

extern "C" {

const char* qllm_status_name(qllm_status status) {
  switch (status) {
    case QLLM_OK:
      return "ok";
    case QLLM_INVALID_ARGUMENT:
      return "invalid_argument";
    case QLLM_NOT_FOUND:
      return "not_found";
    case QLLM_IO:
      return "io";
    case QLLM_BAD_FORMAT:
      return "bad_format";
    case QLLM_UNSUPPORTED:
      return "unsupported";
    case QLLM_OUT_OF_MEMORY:
      return "out_of_memory";
    case QLLM_CONTEXT_FULL:
      return "context_full";
    case QLLM_CANCELLED:
      return "cancelled";
    case QLLM_INTERNAL:
      return "internal";
  }
  return "unknown";
}

const char* qllm_version(void) { return QLLM_VERSION; }

qllm_status qllm_open_options_init(qllm_open_options* options, size_t struct_size) {
  return init_struct(options, qllm::c::default_open_options, struct_size, "qllm_open_options");
}

qllm_status qllm_synthetic_shape_init(qllm_synthetic_shape* shape, size_t struct_size) {
  return init_struct(shape, qllm::c::default_shape, struct_size, "qllm_synthetic_shape");
}

qllm_status qllm_generate_options_init(qllm_generate_options* options, size_t struct_size) {
  return init_struct(options, qllm::c::default_generate_options, struct_size,
                     "qllm_generate_options");
}

qllm_status qllm_model_open(const char* path, const qllm_open_options* options, qllm_model** model,
                            qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(path, "path");
    need_pointer(model, "model");
    *model = make_handle(qllm::Model::open(path, to_cpp(options)));
  });
}

qllm_status qllm_quantize(const char* path, const char* out, const qllm_open_options* options,
                          int64_t* bytes, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(path, "path");
    need_pointer(out, "out");
    const int64_t made = qllm::quantize_model(path, out, to_cpp(options)).bytes;
    if (bytes != nullptr) *bytes = made;
  });
}

qllm_status qllm_model_synthetic(const qllm_synthetic_shape* shape,
                                 const qllm_open_options* options, qllm_model** model,
                                 qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    *model = make_handle(qllm::Model::synthetic(to_cpp(shape), to_cpp(options)));
  });
}

void qllm_model_close(qllm_model* model) { delete model; }

qllm_status qllm_model_get_info(const qllm_model* model, qllm_model_info* info, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(info, "info");
    check_struct_size<qllm_model_info>(info->struct_size, "qllm_model_info");
    write_struct(info, to_c(model->info), info->struct_size);
  });
}

qllm_status qllm_model_get_placement(const qllm_model* model, qllm_placement* placement,
                                     qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(placement, "placement");
    check_struct_size<qllm_placement>(placement->struct_size, "qllm_placement");
    write_struct(placement, to_c(model->model.placement()), placement->struct_size);
  });
}

qllm_status qllm_model_describe_machine(const qllm_model* model, char* buffer, size_t capacity,
                                        size_t* length, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(length, "length");
    copy_text(qllm::c::describe(model->model.machine()), buffer, capacity, length);
  });
}

qllm_status qllm_describe_machine(const qllm_open_options* options, char* buffer, size_t capacity,
                                  size_t* length, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(length, "length");
    copy_text(qllm::c::describe(qllm::inspect_machine(to_cpp(options))), buffer, capacity, length);
  });
}

qllm_status qllm_model_measure_read_gbps(const qllm_model* model, int64_t bytes, double* gbps,
                                         qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(gbps, "gbps");
    need(bytes >= 0, "bytes: expected 0 or more, found a negative number");
    *gbps = bytes == 0 ? model->model.measure_read_gbps() : model->model.measure_read_gbps(bytes);
  });
}

qllm_status qllm_model_tokenize(const qllm_model* model, const char* text, size_t length,
                                uint32_t flags, int32_t* ids, size_t capacity, size_t* count,
                                qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(count, "count");
    need((flags & ~3U) == 0, "flags: only QLLM_ADD_SPECIAL and QLLM_PARSE_SPECIAL are known here");
    const auto made =
        model->model.tokenize(text_of(text, length, "text"), (flags & QLLM_ADD_SPECIAL) != 0,
                              (flags & QLLM_PARSE_SPECIAL) != 0);
    *count = made.size();
    copy_out(made.data(), made.size(), ids, capacity);
  });
}

qllm_status qllm_model_detokenize(const qllm_model* model, const int32_t* ids, size_t count,
                                  uint32_t flags, char* buffer, size_t capacity, size_t* length,
                                  qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(length, "length");
    need((flags & ~4U) == 0, "flags: only QLLM_SHOW_SPECIAL is known here");
    const bool special = (flags & QLLM_SHOW_SPECIAL) != 0;
    copy_text(model->model.detokenize(span_of(ids, count, "ids"), special), buffer, capacity,
              length);
  });
}

qllm_status qllm_model_render_chat(const qllm_model* model, const qllm_chat_message* messages,
                                   size_t count, int add_generation_prompt, char* buffer,
                                   size_t capacity, size_t* length, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(length, "length");
    std::vector<qllm::ChatMessage> turns;
    for (const auto& message : span_of(messages, count, "messages")) {
      need_pointer(message.role, "messages[].role");
      need_pointer(message.content, "messages[].content");
      turns.push_back({message.role, message.content});
    }
    copy_text(model->model.render_chat(turns, add_generation_prompt != 0), buffer, capacity,
              length);
  });
}

qllm_status qllm_session_create(const qllm_model* model, int64_t max_context,
                                qllm_session** session, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(session, "session");
    *session = new qllm_session{model->model, qllm::Session(model->model, max_context),
                                model->info.vocab_size};
  });
}

void qllm_session_destroy(qllm_session* session) { delete session; }

qllm_status qllm_session_reset(qllm_session* session, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    session->session.reset();
  });
}

qllm_status qllm_session_truncate(qllm_session* session, int64_t position, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    session->session.truncate(position);
  });
}

void qllm_session_cancel(qllm_session* session) {
  if (session != nullptr) session->session.cancel();
}

qllm_status qllm_session_save(const qllm_session* session, const char* path, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    need_pointer(path, "path");
    session->session.save(path);
  });
}

qllm_status qllm_session_restore(qllm_session* session, const char* path, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    need_pointer(path, "path");
    session->session.restore(path);
  });
}

qllm_status qllm_session_tokens(const qllm_session* session, int32_t* ids, size_t capacity,
                                size_t* count, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    need_pointer(count, "count");
    const auto tokens = session->session.tokens();
    *count = tokens.size();
    copy_out(tokens.data(), tokens.size(), ids, capacity);
  });
}

int64_t qllm_session_position(const qllm_session* session) {
  return session == nullptr ? -1 : session->session.position();
}

int64_t qllm_session_max_context(const qllm_session* session) {
  return session == nullptr ? -1 : session->session.max_context();
}

qllm_status qllm_session_generate(qllm_session* session, const char* prompt, size_t length,
                                  const qllm_generate_options* options, qllm_text_fn on_text,
                                  void* user, qllm_generate_result* result, qllm_error* error) {
  return guarded(error, [&] {
    generate(session, options, on_text, user, result, [&](const auto& o, const auto& fn) {
      return session->session.generate(text_of(prompt, length, "prompt"), o, fn);
    });
  });
}

qllm_status qllm_session_generate_ids(qllm_session* session, const int32_t* ids, size_t count,
                                      const qllm_generate_options* options, qllm_text_fn on_text,
                                      void* user, qllm_generate_result* result, qllm_error* error) {
  return guarded(error, [&] {
    generate(session, options, on_text, user, result, [&](const auto& o, const auto& fn) {
      return session->session.generate_ids(span_of(ids, count, "ids"), o, fn);
    });
  });
}

qllm_status qllm_session_evaluate(qllm_session* session, const int32_t* ids, size_t count,
                                  qllm_logits_fn on_logits, void* user, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    need(on_logits != nullptr, "on_logits: expected a function, found NULL");
    session->session.evaluate(
        span_of(ids, count, "ids"), [&](int64_t first, int64_t n, std::span<const float> logits) {
          return on_logits(first, n, logits.data(), session->vocab_size, user) == 0;
        });
  });
}

qllm_status qllm_session_prefill(qllm_session* session, const int32_t* ids, size_t count,
                                 qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    session->session.prefill(span_of(ids, count, "ids"));
  });
}

qllm_status qllm_session_decode(qllm_session* session, int32_t id, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(session, "session");
    session->session.decode(id);
  });
}

qllm_status qllm_trace_start(const qllm_model* model, int64_t memory_bytes, qllm_trace** trace,
                             qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(model, "model");
    need_pointer(trace, "trace");
    qllm::TraceOptions options;
    if (memory_bytes != 0) options.memory_bytes = memory_bytes;
    *trace = new qllm_trace{qllm::Trace(model->model, options)};
  });
}

qllm_status qllm_trace_stop(qllm_trace* trace, qllm_trace_info* info, qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(trace, "trace");
    if (info != nullptr) check_struct_size<qllm_trace_info>(info->struct_size, "qllm_trace_info");
    trace->trace.stop();
    if (info != nullptr) write_struct(info, to_c(trace->trace.info()), info->struct_size);
  });
}

qllm_status qllm_trace_write(qllm_trace* trace, qllm_trace_fn on_piece, void* user,
                             qllm_error* error) {
  return guarded(error, [&] {
    need_pointer(trace, "trace");
    need(on_piece != nullptr, "on_piece: expected a function, found NULL");
    trace->trace.write(
        [&](std::string_view piece) { return on_piece(piece.data(), piece.size(), user) == 0; });
  });
}

void qllm_trace_destroy(qllm_trace* trace) { delete trace; }

}  // extern "C"
