// A team per memory node: on a machine of one node, two are made up (HWLOC_SYNTHETIC) in a process
// of its own; binding to the second is refused, the teams are there all the same.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "qllm/qllm.hpp"

namespace {

constexpr int64_t kVocab = 500;

qllm::Model model_of(const std::string& policy) {
  qllm::SyntheticShape shape;
  shape.d_model = 128;
  shape.d_ff = 192;
  shape.n_layers = 2;
  shape.n_heads = 4;
  shape.n_kv_heads = 2;
  shape.head_dim = 32;
  shape.vocab = kVocab;
  qllm::OpenOptions options;
  options.device = "cpu";
  options.numa = policy;
  return qllm::Model::synthetic(shape, options);
}

/// Logits of one more token behind each of three prompts, decoded together.
std::vector<float> together(const qllm::Model& model) {
  std::vector<qllm::Session> sessions;
  std::vector<qllm::Session*> pointers;
  for (int32_t i = 0; i < 3; ++i) {
    sessions.emplace_back(model, 64);
    sessions.back().prefill(std::vector<int32_t>{i, 2 * i + 1, 7});
  }
  for (qllm::Session& session : sessions) pointers.push_back(&session);
  const std::vector<int32_t> ids = {5, 6, 7};
  std::vector<float> logits(3 * kVocab);
  qllm::Session::decode_together(pointers, ids, logits);
  for (const qllm::Session& session : sessions) CHECK(session.position() == 4);
  return logits;
}

void check_teams() {
  const auto model = model_of("replicate");
  CHECK(model.machine().workers == 2);
  const auto placement = model.placement();
  int teams = 0;
  for (const auto& node : placement.nodes) teams += node.workers == 1 ? 1 : 0;
  CHECK(teams == 2);
  const auto one = model_of("split");
  CHECK(model.info().weight_bytes == 2 * one.info().weight_bytes);
  CHECK(model.info().bytes_per_token == one.info().bytes_per_token);
  const auto expected = together(one);
  const auto found = together(model);
  for (size_t i = 0; i < expected.size(); ++i) {
    // Sums over the keys may be parted elsewhere: a few roundings of 2^-24 of values near 1.
    CHECK(std::abs(found[i] - expected[i]) < 1e-4F);
  }
  std::vector<std::thread> callers;  // sessions of both teams at once
  for (int i = 0; i < 4; ++i) callers.emplace_back([&] { together(model); });
  for (std::thread& caller : callers) caller.join();
}

TEST_CASE("replicas: child with two nodes" * doctest::skip()) { check_teams(); }

TEST_CASE("replicas: two teams share out the sessions and decode them together") {
  if (std::thread::hardware_concurrency() < 2) {
    MESSAGE("[skipped] replicas: one CPU only");
    return;
  }
  const std::string child = "HWLOC_SYNTHETIC='numa:2 core:1 pu:1' HWLOC_THISSYSTEM=1 /proc/" +
                            std::to_string(getpid()) +
                            "/exe --no-skip -tc='replicas: child with two nodes' >/dev/null";
  CHECK(system(child.c_str()) == 0);
}

TEST_CASE("replicas: on one node one team does it all") {
  const auto model = model_of("replicate");
  CHECK(model.info().weight_bytes > 0);
  CHECK(together(model) == together(model_of("split")));
}

}  // namespace
