/* The C API as C sees it: c_smoke.c is compiled as strict C11. */
#ifndef QLLM_TESTS_API_C_SMOKE_H
#define QLLM_TESTS_API_C_SMOKE_H

#include <stddef.h>

#include "qllm/qllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens, generates 8 tokens greedily into `text` (ends in a NUL, cut at `capacity`), closes. */
qllm_status c_smoke(const char* path, char* text, size_t capacity, qllm_error* error);

#ifdef __cplusplus
}
#endif

#endif
