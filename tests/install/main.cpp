#include <cstdio>

#include "qllm/qllm.hpp"

// Prints the version: the header compiles elsewhere and the library links.
int main() {
  std::puts(qllm::version().c_str());
  return 0;
}
