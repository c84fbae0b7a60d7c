// The tiny model that the build made (tests/support/make_tiny_model.cpp). Tests of this folder see
// public headers only: they also run against the shared library.
#pragma once

#include <string>

#include "qllm/qllm.hpp"

namespace qllm::test {

inline const char* tiny_path() { return QLLM_TEST_TINY_MODEL; }

inline Model open_tiny(const std::string& device = "cpu", int64_t max_batch_tokens = 512) {
  OpenOptions options;
  options.device = device;
  options.threads = 2;
  options.max_batch_tokens = max_batch_tokens;
  return Model::open(tiny_path(), options);
}

/// Greedy, and not ended by a token that a random model happens to like.
inline GenerateOptions greedy(int64_t max_tokens) {
  GenerateOptions options;
  options.max_tokens = max_tokens;
  options.temperature = 0;
  options.ignore_end = true;
  return options;
}

}  // namespace qllm::test
