#include <cstdio>

#include "qllm/qllm.hpp"

// Prints the version, and checks that what the library throws is caught by its type out here.
int main() {
  try {
    qllm::inspect_model("/there/is/no/such/model.gguf");
    return 1;
  } catch (const qllm::Error& error) {
    if (error.code() != qllm::ErrorCode::io && error.code() != qllm::ErrorCode::not_found) return 2;
  }
  std::puts(qllm::version().c_str());
  return 0;
}
