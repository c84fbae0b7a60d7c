// Whole steps of the CUDA backend, emulated: what only an emulated device can show. tests/cuda has
// the steps that run on a real one too.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/profile.h"
#include "core/error.h"
#include "cuda_backend.h"
#include "cuda_host/runtime.h"
#include "support/agreement.h"
#include "support/device_steps.h"

using namespace qllm;  // NOLINT

namespace {

using test::kVocab;
using test::options_of;
using test::run_all;
using Shape = test::StepsShape;

std::unique_ptr<Backend> backend_of(const std::string& device, const BackendOptions& options) {
  return device == "cuda" ? cuda::make_backend(options) : make_backend(device, options);
}

struct Machine : test::StepsMachine {
  Machine(const std::string& device, const BackendOptions& options, const Shape& shape)
      : StepsMachine(backend_of(device, options), shape) {}
};

/// What a test allocates on the device must be gone behind it; and the emulated device is as it
/// was.
struct CleanDevice {
  cuda_host::Device before = cuda_host::device();
  ~CleanDevice() {
    cuda_host::device() = before;
    CHECK(cuda_host::allocated_bytes() == 0);
  }
};

}  // namespace

TEST_CASE("cuda steps: the same bits in whatever order threads run, and on whatever device") {
  const CleanDevice clean;
  const BackendOptions options = options_of("int8", KvFormat::int8);
  std::vector<std::vector<float>> first;
  for (const uint64_t order : {0, 1, 2, 77}) {
    cuda_host::set_order(order);
    Machine machine("cuda", options, {});
    const auto logits = run_all(machine);
    if (first.empty()) first = logits;
    CHECK(logits == first);
  }
  cuda_host::set_order(0);
}

TEST_CASE("cuda steps: decode steps are captured once for each number of tokens") {
  const CleanDevice clean;
  const BackendOptions options = options_of("int8");
  Machine machine("cuda", options, {});
  const auto before = cuda_host::graph_counters();
  machine.step({20, 30, 0});
  for (int i = 0; i < 5; ++i) machine.step({1, 0, 0});
  for (int i = 0; i < 5; ++i) machine.step({1, 1, 0});
  const auto after = cuda_host::graph_counters();
  CHECK(after.captured - before.captured == 2);
  CHECK(after.launched - before.launched == 8);  // the first of each kind runs as it is
}

TEST_CASE("cuda steps: a long context moves the tables, and graphs with them") {
  const CleanDevice clean;
  const BackendOptions options = options_of("int8");
  Machine machine("cuda", options, {}), oracle("reference", options, {});
  test::Agreement agreement;
  for (int i = 0; i < 3; ++i) {
    for (const auto& counts : {std::vector<int64_t>{140, 0, 0}, {1, 0, 0}, {1, 0, 0}, {1, 0, 0}}) {
      agreement.compare(machine.step(counts), oracle.step(counts), kVocab);
    }
  }
  CHECK(agreement.largest < test::Agreement::kRoundedAnew);
}

TEST_CASE("cuda steps: each op is timed, and a timed step gives the same bits") {
  const CleanDevice clean;
  const BackendOptions options = options_of("int8");
  Machine plain("cuda", options, {}), timed("cuda", options, {});
  StepRecorder recorder;
  timed.plan().set_recorder(&recorder);
  recorder.prepare();
  for (const auto& counts : {std::vector<int64_t>{20, 0, 0}, {1, 0, 0}, {1, 0, 0}}) {
    CHECK(timed.step(counts) == plain.step(counts));
  }
  timed.plan().set_recorder(nullptr);
  REQUIRE(recorder.teams().size() == 1);
  const ProfileTeam& team = recorder.teams().front();
  CHECK(team.kind == TrackKind::gpu);
  CHECK(team.tracks.front().name() == "gpu 0");
  const auto spans = team.tracks.front().spans();
  REQUIRE(spans.size() == 3 * team.stages.size());
  std::vector<bool> covered(test::graph_of({}).ops.size());
  for (const ProfileStage& stage : team.stages) {
    for (int32_t op = stage.first_op; op < stage.end_op; ++op)
      covered[static_cast<size_t>(op)] = true;
  }
  CHECK(std::count(covered.begin(), covered.end(), false) == 1);  // the embedding: a copy
  for (size_t i = 0; i < spans.size(); ++i) {
    CHECK(spans[i].begin_ns <= spans[i].end_ns);
    CHECK(spans[i].step == static_cast<int32_t>(i / team.stages.size()));
    if (i > 0) CHECK(spans[i - 1].end_ns <= spans[i].begin_ns);
    const ProfileStep& step = recorder.steps()[static_cast<size_t>(spans[i].step)];
    CHECK(spans[i].begin_ns >= step.begin_ns);
    CHECK(spans[i].end_ns <= step.end_ns);
  }
}

TEST_CASE("cuda backend: says what is missing") {
  const CleanDevice clean;
  const auto message = [] {
    try {
      cuda::make_backend(options_of("int8"));
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::unsupported);
      return std::string(e.what());
    }
    return std::string("none");
  };
  cuda_host::device().driver = false;
  CHECK(message() == "device cuda: no NVIDIA driver was found (libcuda.so.1)");
  cuda_host::device().driver = true;
  cuda_host::device().count = 0;
  CHECK(message() == "device cuda: the driver finds no GPU");
  cuda_host::device().count = 1;
  cuda_host::device().major = 7;
  cuda_host::device().minor = 0;
  CHECK(message() ==
        "device cuda: emulated device has compute capability 7.0, 7.5 is the least that runs");
  cuda_host::device().minor = 5;
  CHECK(message() == "none");
  CHECK_THROWS_WITH_AS(cuda::make_backend(options_of("fp32")),
                       "device cuda: scheme fp32: it computes with quantized weights, the "
                       "reference in fp32",
                       Error);
}

TEST_CASE("cuda backend: every allocation may fail, and nothing leaks") {
  const CleanDevice clean;
  const Graph graph = test::graph_of({});
  int64_t failures = 0;
  for (int allowed = 0;; ++allowed) {
    cuda_host::device().fail_allocation = allowed;
    try {
      Machine machine("cuda", options_of("int8"), {});
      machine.step({5, 0, 0});
      if (cuda_host::device().fail_allocation >= 0) break;  // it never came to that
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::out_of_memory);
      ++failures;
    }
    REQUIRE(cuda_host::allocated_bytes() == 0);
    REQUIRE(allowed < 1000);
  }
  CHECK(failures > 20);
}
