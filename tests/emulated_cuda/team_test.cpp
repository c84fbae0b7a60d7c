// Several emulated GPUs that share a model: the same bits as one, whatever their number.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/profile.h"
#include "core/error.h"
#include "cuda_backend.h"
#include "cuda_host/device_memory.h"
#include "cuda_host/devices.h"
#include "cuda_host/runtime.h"
#include "kernels/columns.h"
#include "row_share.h"
#include "support/device_steps.h"
#include "team_cut.h"
#include "team_kv_storage.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

using test::kVocab;
using test::options_of;
using test::StepsShape;

// Five blocks of 64 of d_ff and four of others over 2, 3 and 4 GPUs: even and uneven shares.
constexpr StepsShape kShape{256, 320, 8, 4, 64};

struct Machine : test::StepsMachine {
  Machine(const BackendOptions& options, const StepsShape& shape)
      : StepsMachine(cuda::make_backend(options), shape) {}
};

/// So many GPUs; behind it all is as before, and nothing is left.
struct Gpus {
  cuda_host::Device before = cuda_host::device();
  explicit Gpus(int count) { cuda_host::device().count = count; }
  ~Gpus() {
    cuda_host::device() = before;
    cudaSetDevice(0);
    CHECK(cuda_host::allocated_bytes() == 0);
    CHECK(cuda_host::communicators() == 0);
    CHECK(std::string(cuda_host::last_failure()).empty());
  }
};

/// Prefill and decode of several sequences, more tokens than tiles take among them.
std::vector<std::vector<float>> logits_of(int gpus, const BackendOptions& options,
                                          const StepsShape& shape) {
  const Gpus scope(gpus);
  Machine machine(options, shape);
  std::vector<std::vector<float>> out;
  for (const auto& counts :
       {std::vector<int64_t>{70, 5, 0}, {1, 0, 9}, {1, 1, 1}, {1, 0, 0}, {0, 1, 0}}) {
    out.push_back(machine.step(counts));
  }
  return out;
}

std::vector<std::string> lines_of_load(int gpus, const StepsShape& shape) {
  std::vector<std::string> lines;
  const Gpus scope(gpus);
  BackendOptions options = options_of("int8");
  options.log = [&](LogLevel /*level*/, std::string_view line) { lines.emplace_back(line); };
  Machine machine(options, shape);
  machine.step({3, 0, 0});
  return lines;
}

bool mentions(const std::vector<std::string>& lines, const std::string& text) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(text) != line.npos; });
}

}  // namespace

TEST_CASE("cuda team: deals are whole units, end to end, the first the largest") {
  for (int64_t units = 1; units < 20; ++units) {
    for (int64_t ranks = 1; ranks <= units; ++ranks) {
      const Deal deal{64, units, ranks};
      CHECK(deal.begin(0) == 0);
      CHECK(deal.end(ranks - 1) == 64 * units);
      CHECK(deal.even() == (units % ranks == 0));
      for (int64_t r = 0; r < ranks; ++r) {
        const int64_t mine = deal.end(r) - deal.begin(r);
        CHECK(mine >= 64);
        CHECK(mine <= deal.most());
        CHECK(mine + 64 >= deal.most());
      }
    }
  }
}

TEST_CASE("cuda team: shares of runs keep order and formats, and join what is alike") {
  PackedRun eight{{}, 0, 256, 128}, four = eight;
  four.n0 = 256;
  four.format.kind = WeightFormat::Kind::groups;
  const auto shared = share_runs({eight, four}, {{64, 128}, {192, 320}, {0, 64}});
  REQUIRE(shared.size() == 3);
  CHECK(shared[0].run.n0 == 0);
  CHECK(shared[0].run.n == 128);
  REQUIRE(shared[0].pieces.size() == 2);
  CHECK(shared[0].pieces[1].row == 192);
  CHECK(shared[1].run.n0 == 128);
  CHECK(shared[1].run.n == 64);
  CHECK(shared[1].run.in_groups());
  CHECK(shared[1].pieces[0].run == 1);
  CHECK(shared[1].pieces[0].row == 256);
  CHECK(shared[2].run.n0 == 192);
  CHECK(shared[2].pieces[0].row == 0);
}

TEST_CASE("cuda team: columns are packed and put back") {
  const Deal deal{64, 5, 3};  // 128, 128, 64 columns, of the last 40
  const int64_t rows = 3, width = 296, ld = 320;
  std::vector<float> values(static_cast<size_t>(rows * ld));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i + 1);
  DeviceMemory<float> in(values), out(std::vector<float>(values.size())),
      packed(deal.ranks * rows * deal.most());
  for (int64_t r = 0; r < deal.ranks; ++r) {
    const int64_t end = std::min(deal.end(r), width);
    pack_columns({in.data() + deal.begin(r), ld, end - deal.begin(r)}, rows,
                 packed.data() + r * rows * deal.most(), deal.most(), nullptr);
  }
  unpack_columns(packed.data(), deal, rows, {out.data(), ld, width}, nullptr);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < ld; ++c) {
      const float want = c < width ? values[static_cast<size_t>(r * ld + c)] : 0;
      REQUIRE(out.data()[r * ld + c] == want);
    }
  }
}

TEST_CASE("cuda team: a graph is cut by heads and by blocks of 64, each row once") {
  const Graph graph = test::graph_of(kShape);
  const TeamCut cut = cut_graph(graph, 3);
  for (size_t w = 0; w < graph.weights.size(); ++w) {
    if (graph.weights[w].role != WeightRole::linear) continue;
    std::vector<int> taken(static_cast<size_t>(graph.weights[w].n));
    for (const RankCut& rank : cut.ranks) {
      for (const RowRange& range : rank.shares[w]) {
        CHECK(range.begin % 64 == 0);
        for (int64_t i = range.begin; i < range.end; ++i) ++taken[static_cast<size_t>(i)];
      }
    }
    CHECK(std::count(taken.begin(), taken.end(), 1) == graph.weights[w].n);
  }
  CHECK(cut.n_kv_heads == 4);
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (const auto* op = std::get_if<AttentionOp>(&cut.ranks[0].graph.ops[i])) {
      CHECK(op->n_heads == 4);
      CHECK(op->n_kv_heads == 2);
      CHECK(cut.gathers[i].unit == 128);
    }
  }
}

TEST_CASE("cuda team: the same bits on 1 to 4 GPUs") {
  const BackendOptions options = options_of("int8", KvFormat::int8);
  const auto one = logits_of(1, options, kShape);
  for (const int gpus : {2, 3, 4}) {
    CAPTURE(gpus);
    CHECK(logits_of(gpus, options, kShape) == one);
  }
}

TEST_CASE("cuda team: the same bits in groups, and where fewer heads would take more splits") {
  const Gpus scope(1);
  cuda_host::device().multiprocessors = 1;
  const BackendOptions options = options_of("int4-g64");
  const auto one = logits_of(1, options, kShape);
  for (const int gpus : {2, 4}) {
    CAPTURE(gpus);
    CHECK(logits_of(gpus, options, kShape) == one);
  }
}

TEST_CASE("cuda team: the same bits where heads share blocks of 64, and where rows are on grids") {
  StepsShape shape{256, 256, 8, 4, 32};
  shape.on_grids = true;
  const BackendOptions options = options_of("keep", KvFormat::f16);
  CHECK(logits_of(2, options, shape) == logits_of(1, options, shape));
}

TEST_CASE("cuda team: all GPUs hold a part and work; no step is captured") {
  const Gpus scope(2);
  const auto graphs = cuda_host::graph_counters();
  const int64_t gathers = cuda_host::gathers(), work = cuda_host::enqueued(1);
  Machine machine(options_of("int8"), kShape);
  for (int i = 0; i < 4; ++i) machine.step({1, 0, 0});
  CHECK(cuda_host::graph_counters().captured == graphs.captured);
  // Attention, O, SwiGLU and down of two layers, and the logits.
  CHECK(cuda_host::gathers() - gathers == 4 * 9);
  CHECK(cuda_host::enqueued(1) > work);
  const int64_t first = cuda_host::allocated_bytes(0), second = cuda_host::allocated_bytes(1);
  CHECK(first > 0);
  CHECK(second > first * 8 / 10);
  CHECK(second < first * 12 / 10);
}

TEST_CASE("cuda team: what cannot be cut runs on one GPU, and says why") {
  const auto heads = lines_of_load(4, {128, 192, 4, 2, 64});
  CHECK(mentions(heads, "one of 4 GPUs is used: 2 KV heads of 64 are 2 whole blocks of 64"));
  const auto odd = lines_of_load(2, {256, 320, 6, 3, 32});
  CHECK(mentions(odd, "one of 2 GPUs is used: 3 KV heads of 32 are"));
  const auto narrow = lines_of_load(2, {256, 64, 8, 4, 64});
  CHECK(
      mentions(narrow, "one of 2 GPUs is used: blk.0.ffn_gate_up has 64 outputs, 1 blocks of 64"));
  CHECK(mentions(lines_of_load(2, kShape), "of weights on 2 x emulated device"));
}

TEST_CASE("cuda team: without NCCL one GPU is used, and a line says so") {
  const Gpus scope(2);
  cuda_host::install_nccl(false);
  std::vector<std::string> lines;
  BackendOptions options = options_of("int8");
  options.log = [&](LogLevel /*level*/, std::string_view line) { lines.emplace_back(line); };
  CHECK(cuda::make_backend(options)->info().device == "emulated device");
  CHECK(mentions(lines, "2 GPUs, but no NCCL (libnccl.so.2): one is used"));
  cuda_host::install_nccl(true);
  CHECK(cuda::make_backend(options)->info().device == "2 x emulated device");
}

TEST_CASE("cuda team: blocks of keys and values are read, written and copied whole") {
  const Gpus scope(2);
  const BackendOptions options = options_of("int8", KvFormat::f16);
  const auto backend = cuda::make_backend(options);
  const Graph graph = test::graph_of(kShape);
  const auto weights = backend->load(graph, std::make_shared<SyntheticSource>(graph, 5), {});
  const KvShape shape{2, 4, 64};
  const auto storage = backend->make_kv_storage(shape, 3);
  CHECK(storage->block_bytes() == backend->kv_block_bytes(shape));
  CHECK(storage->layout() == "cuda 1 f16 blocks of 64, heads of 2 GPUs");
  for (int32_t b = 0; b < 3; ++b) storage->open(b, true);
  std::vector<std::byte> in(static_cast<size_t>(storage->block_bytes())), out(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<std::byte>(i % 61);  // finite
  storage->write(1, in);
  storage->copy(1, 2);
  storage->read(2, out);
  CHECK(out == in);
  storage->open(2, false);
  storage->read(2, out);
  CHECK(std::count(out.begin(), out.end(), std::byte{}) == static_cast<int64_t>(out.size()));
  storage->read(1, out);
  CHECK(out == in);
}

TEST_CASE("cuda team: each GPU has a track, and timed steps give the same bits") {
  const Gpus scope(2);
  const BackendOptions options = options_of("int8");
  Machine plain(options, kShape), timed(options, kShape);
  StepRecorder recorder;
  timed.plan().set_recorder(&recorder);
  recorder.prepare();
  for (const auto& counts : {std::vector<int64_t>{20, 0, 0}, {1, 0, 0}}) {
    CHECK(timed.step(counts) == plain.step(counts));
  }
  timed.plan().set_recorder(nullptr);
  REQUIRE(recorder.teams().size() == 1);
  const ProfileTeam& team = recorder.teams().front();
  REQUIRE(team.tracks.size() == 2);
  CHECK(team.tracks[1].name() == "gpu 1");
  for (const SpanTrack& track : team.tracks) {
    CHECK(track.spans().size() == 2 * team.stages.size());
    CHECK(track.dropped() == 0);
  }
  const auto exchange = [](const ProfileStage& stage) { return stage.kind == "exchange"; };
  CHECK(std::count_if(team.stages.begin(), team.stages.end(), exchange) == 9);
  for (const ProfileStage& stage : team.stages) {
    CHECK((stage.track_bytes.empty() || stage.track_bytes.size() == 2));
  }
}

TEST_CASE("cuda team: allocations may fail on any GPU, and nothing leaks") {
  for (int allowed = 0; allowed < 400; allowed += 7) {
    const Gpus scope(2);
    cuda_host::device().fail_allocation = allowed;
    bool failed = false;
    try {
      Machine machine(options_of("int8"), {128, 128, 2, 2, 64});
      machine.step({2, 0, 0});
    } catch (const Error& e) {
      failed = true;
      CHECK(e.code() == ErrorCode::out_of_memory);
    }
    if (!failed) break;
  }
}
