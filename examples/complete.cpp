// Completes a text, in C++: complete MODEL.gguf ["PROMPT"]
#include <cstdio>
#include <iostream>
#include <qllm/qllm.hpp>

namespace {

void complete(const char* path, std::string_view prompt) {
  const auto model = qllm::Model::open(path);
  qllm::Session session(model);

  qllm::GenerateOptions options;
  options.max_tokens = 64;
  options.temperature = 0;  // greedy

  const auto result = session.generate(prompt, options, [](std::string_view text) {
    return static_cast<bool>(std::cout << text << std::flush);  // false stops
  });
  const double per_second =
      result.decode_s > 0 ? static_cast<double>(result.generated_tokens - 1) / result.decode_s : 0;
  std::fprintf(stderr, "\n%lld tokens, first after %.0f ms, then %.1f tokens/s\n",
               static_cast<long long>(result.generated_tokens), 1e3 * result.ttft_s, per_second);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: complete MODEL.gguf [PROMPT]\n";
    return 2;
  }
  try {
    complete(argv[1], argc > 2 ? argv[2] : "Once upon a time");
  } catch (const qllm::Error& error) {
    std::cerr << "complete: " << error.what() << "\n";
    return 1;
  }
}
