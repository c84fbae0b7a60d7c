#include "api/c_smoke.h"

#include <string.h>

struct sink {
  char* text;
  size_t length, capacity;
};

static int append(const char* text, size_t length, void* user) {
  struct sink* sink = user;
  if (length >= sink->capacity - sink->length) return 1;
  memcpy(sink->text + sink->length, text, length + 1);
  sink->length += length;
  return 0;
}

qllm_status c_smoke(const char* path, char* text, size_t capacity, qllm_error* error) {
  struct sink sink = {text, 0, capacity};
  qllm_model* model = NULL;
  qllm_session* session = NULL;
  qllm_generate_options options;
  qllm_status status = qllm_generate_options_init(&options, sizeof options);
  options.max_tokens = 8;
  options.temperature = 0;
  text[0] = '\0';
  if (status == QLLM_OK) status = qllm_model_open(path, NULL, &model, error);
  if (status == QLLM_OK) status = qllm_session_create(model, 64, &session, error);
  if (status == QLLM_OK) {
    status = qllm_session_generate(session, "Hello", 5, &options, append, &sink, NULL, error);
  }
  qllm_session_destroy(session);
  qllm_model_close(model);
  return status;
}
