/* Completes a text, in C: complete MODEL.gguf ["PROMPT"] */
#include <qllm/qllm.h>
#include <stdio.h>
#include <string.h>

static int print_text(const char* text, size_t length, void* user) {
  fwrite(text, 1, length, user);
  return fflush(user); /* nonzero stops */
}

static int complete(qllm_session* session, const char* prompt, qllm_error* error) {
  qllm_generate_options options;
  qllm_generate_options_init(&options, sizeof options);
  options.max_tokens = 64;
  options.temperature = 0; /* greedy */

  qllm_generate_result result = {.struct_size = sizeof result};
  if (qllm_session_generate(session, prompt, strlen(prompt), &options, print_text, stdout, &result,
                            error) != QLLM_OK) {
    return 1;
  }
  const double tokens_per_s =
      result.decode_s > 0 ? (result.generated_tokens - 1) / result.decode_s : 0;
  fprintf(stderr, "\n%lld tokens, first after %.0f ms, then %.1f tokens/s\n",
          (long long)result.generated_tokens, 1e3 * result.ttft_s, tokens_per_s);
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 2) return fputs("usage: complete MODEL.gguf [PROMPT]\n", stderr), 2;
  qllm_error error;
  qllm_model* model = NULL;
  qllm_session* session = NULL;
  int failed = qllm_model_open(argv[1], NULL, &model, &error) != QLLM_OK ||
               qllm_session_create(model, 0, &session, &error) != QLLM_OK ||
               complete(session, argc > 2 ? argv[2] : "Once upon a time", &error) != 0;
  if (failed) fprintf(stderr, "complete: %s: %s\n", qllm_status_name(error.code), error.message);
  qllm_session_destroy(session);
  qllm_model_close(model);
  return failed;
}
