// make_tiny_model OUT.gguf: writes a complete model of random weights, always the same one, for
// tests that go through files (the APIs, the program).
#include <cstdio>
#include <exception>

#include "support/tiny_llama.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_tiny_model OUT.gguf\n", stderr);
    return 2;
  }
  try {
    qllm::test::write_tiny_llama_gguf(argv[1]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "make_tiny_model: %s\n", e.what());
    return 1;
  }
}
