// Greedy text of the real model on a GPU and on the cpu, both with int8 weights and activations.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qllm/qllm.hpp"
#include "support/cuda_or_skip.h"

namespace {

std::vector<int32_t> generate(const qllm::Model& model, const std::vector<int32_t>& prompt) {
  qllm::GenerateOptions o;
  o.max_tokens = 64;
  o.temperature = 0.0F;
  o.ignore_end = true;
  qllm::Session session(model, 256);
  return session.generate_ids(prompt, o).ids;
}

/// The logits behind the last of `ids`.
std::vector<float> last_logits(const qllm::Model& model, const std::vector<int32_t>& ids) {
  qllm::Session session(model, 256);
  std::vector<float> out;
  session.evaluate(ids, [&](int64_t /*first*/, int64_t count, std::span<const float> logits) {
    const size_t vocab = logits.size() / static_cast<size_t>(count);
    const auto last = logits.last(vocab);
    out.assign(last.begin(), last.end());
    return true;
  });
  return out;
}

/// How far the best logit is above the second, over the root of their mean square.
double lead(std::vector<float> logits) {
  double squares = 0;
  for (const float v : logits) squares += double{v} * v;
  std::nth_element(logits.begin(), logits.begin() + 1, logits.end(), std::greater<>());
  return (logits[0] - logits[1]) / std::sqrt(squares / static_cast<double>(logits.size()));
}

}  // namespace

// Both round the same weights and activations to the same grids; floats between are summed in
// another order, so an activation near the middle of two codes may take either. Where all is
// rounded anew, logits of two layers differ by 0.03 of their size (support/agreement.h), those of
// thirty by sqrt(15) times that. Where the texts part, the two best tokens must have been that
// close.
TEST_CASE("cuda greedy: 64 tokens of three prompts equal the cpu's, or part at a near tie" *
          doctest::test_suite("slow")) {
  const char* path = std::getenv("QLLM_TEST_MODEL");
  if (path == nullptr || !std::filesystem::exists(path)) {
    MESSAGE("[skipped] cuda greedy: no model; ./test fetches it");
    return;
  }
  if (!qllm::test::cuda_or_skip()) return;
  qllm::OpenOptions options;
  options.device = "cpu";
  const qllm::Model cpu = qllm::Model::open(path, options);
  options.device = "cuda";
  const qllm::Model cuda = qllm::Model::open(path, options);
  std::ifstream in(std::string(QLLM_TEST_DATA) + "/smollm2_greedy.json");
  const nlohmann::json golden = nlohmann::json::parse(in);
  REQUIRE(golden["cases"].size() >= 3);
  int64_t same = 0;
  for (const auto& c : golden["cases"]) {
    auto prompt = c["prompt_ids"].get<std::vector<int32_t>>();
    INFO("case ", c["name"].get<std::string>());
    const std::vector<int32_t> a = generate(cpu, prompt), b = generate(cuda, prompt);
    REQUIRE(a.size() == 64);
    REQUIRE(b.size() == 64);
    size_t i = 0;
    while (i < 64 && a[i] == b[i]) ++i;
    same += static_cast<int64_t>(i);
    if (i == 64) continue;
    prompt.insert(prompt.end(), a.begin(), a.begin() + static_cast<std::ptrdiff_t>(i));
    const double gap = lead(last_logits(cpu, prompt));
    MESSAGE("parts at token ", i, ": the best logit leads by ", gap, " of their size");
    CHECK(gap < 0.03 * std::sqrt(15.0));
  }
  MESSAGE(same, " of ", 64 * golden["cases"].size(), " tokens are the same");
}
