#include <stdio.h>

#include "qllm/qllm.h"

/* Prints the version: the C header compiles as C11 and the library links. */
int main(void) {
  puts(qllm_version());
  return 0;
}
