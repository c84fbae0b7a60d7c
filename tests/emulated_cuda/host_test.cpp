// What the CUDA backend computes on the host: tables, parts of linears, packed blocks.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "backend/device_plugin.h"
#include "backend/packed_linear.h"
#include "ceilings.h"
#include "core/error.h"
#include "cuda_backend.h"
#include "cuda_host/device_memory.h"
#include "cuda_host/runtime.h"
#include "cuda_weights.h"
#include "model/llama.h"
#include "model/synthetic.h"
#include "step_upload.h"
#include "support/grid_source.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

PackedRun int8_run(int64_t n0, int64_t n) { return {{}, n0, n, 128}; }

Graph small_graph() {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 130;
  c.d_model = 256;
  c.d_ff = 192;
  c.n_layers = 1;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 64;
  c.rotary_dim = 64;
  c.context_length = 64;
  c.tied_lm_head = true;
  return build_llama(c);
}

/// Bytes of all blocks of all linears, by weight, term and row.
using Blocks = std::map<std::tuple<std::string, bool, int64_t>, std::vector<std::byte>>;

Blocks pack_all(Backend& backend, const Scheme& scheme, const Graph& graph,
                const TensorSource& source) {
  Blocks out;
  std::mutex mutex;
  for (const Weight& weight : graph.weights) {
    if (weight.role != WeightRole::linear) continue;
    const PackedLayout layout = packed_layout(scheme, weight, source);
    backend.pack(weight, layout, source, [&](const PackedBlock& block) {
      const PackedRun& run =
          block.second_term ? layout.second_terms[block.run] : layout.runs[block.run];
      std::vector<std::byte> bytes(block.view.codes, block.view.codes + run.column_bytes());
      if (!run.in_groups()) {
        const auto* scale = reinterpret_cast<const std::byte*>(block.view.scale);
        const auto* sum = reinterpret_cast<const std::byte*>(block.view.sum);
        bytes.insert(bytes.end(), scale, scale + kBlockN * 4);
        bytes.insert(bytes.end(), sum, sum + kBlockN * 4);
      }
      const std::lock_guard lock(mutex);
      out[{weight.name, block.second_term, block.row}] = std::move(bytes);
    });
  }
  return out;
}

}  // namespace

TEST_CASE("cuda weights: each part of an int8 linear has one run of second terms at most") {
  PackedLayout layout;
  layout.runs = {int8_run(0, 256), int8_run(256, 512)};
  layout.second_terms = {int8_run(64, 64), int8_run(192, 128), int8_run(640, 64)};
  int64_t next = 0, second = 0;
  for (const Int8Linear& part : pair_terms(layout)) {
    CHECK(part.first.n0 == next);
    CHECK(part.first.n > 0);
    next += part.first.n;
    if (part.second.n == 0) continue;
    CHECK(part.second.n0 >= part.first.n0);
    CHECK(part.second.n0 + part.second.n <= next);
    second += part.second.n;
  }
  CHECK(next == 768);
  CHECK(second == 64 + 128 + 64);
  CHECK(pair_terms(PackedLayout{{int8_run(0, 64)}, {}, 0, 128}).size() == 1);
}

TEST_CASE("cuda step: tables do not overlap and are aligned") {
  for (const int64_t tokens : {1, 3, 512}) {
    const TableLayout t = table_layout(tokens, 2, 100);
    CHECK(t.slice_of >= t.slices + tokens * static_cast<int64_t>(sizeof(DeviceSlice)));
    CHECK(t.position >= t.slice_of + tokens * 4);
    CHECK(t.output_rows >= t.position + tokens * 4);
    CHECK(t.blocks >= t.output_rows + 2 * 4);
    CHECK(t.bytes >= t.blocks + 100 * 8);
    for (const int64_t at : {t.slices, t.slice_of, t.position, t.output_rows, t.blocks}) {
      CHECK(at % 16 == 0);
    }
  }
}

TEST_CASE("cuda backend: packs what the cpu packs, bit for bit") {
  const Graph graph = small_graph();
  const auto plain = std::make_shared<SyntheticSource>(graph, 8);
  for (const char* name : {"int8", "int4-g64", "keep"}) {
    CAPTURE(name);
    BackendOptions options;
    options.scheme = parse_scheme(name);
    std::shared_ptr<const TensorSource> source = plain;
    if (options.scheme.kind == SchemeKind::keep) {
      source = std::make_shared<test::GridSource>(graph, plain);
    }
    const auto device = cuda::make_backend(options);
    const auto cpu = qllm::make_backend("cpu", options);
    const Blocks ours = pack_all(*device, options.scheme, graph, *source);
    const Blocks theirs = pack_all(*cpu, options.scheme, graph, *source);
    CHECK(!ours.empty());
    CHECK(ours == theirs);
  }
}

TEST_CASE("cuda ceilings: there are figures, and none where memory is short") {
  const DeviceInfo device = open_device(0);
  const Stream stream;
  CHECK(measure_read_gbps(1 << 20, device, stream) > 0);
  CHECK(measure_gemm_tops(GemmKind::int8, device, stream) > 0);
  CHECK(measure_gemm_tops(GemmKind::f16, device, stream) > 0);
  CHECK(measure_read_gbps(int64_t{1} << 50, device, stream) == 0);
  CHECK(std::string(cuda_host::last_failure()).empty());
}

TEST_CASE("cuda gemm: int8 sums are exact, sizes that cuBLASLt refuses are errors") {
  const int64_t m = 5, n = 32, k = 48;
  std::vector<int8_t> x(static_cast<size_t>(m * k)), w(static_cast<size_t>(n * k));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int8_t>(i * 37 % 255 - 127);
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(i * 91 % 255 - 127);
  DeviceMemory<int8_t> dx(x), dw(w);
  DeviceMemory<int32_t> y(m * n);
  LtGemm gemm(GemmKind::int8);
  const Stream stream;
  gemm.multiply(dx.data(), k, dw.data(), k, m, n, k, y.data(), stream);
  for (int64_t i = 0; i < m * n; ++i) {
    int32_t sum = 0;
    for (int64_t j = 0; j < k; ++j) {
      sum += x[static_cast<size_t>(i / n * k + j)] * w[static_cast<size_t>(i % n * k + j)];
    }
    REQUIRE(y.data()[i] == sum);
  }
  CHECK_THROWS_AS(gemm.multiply(dx.data(), k, dw.data(), k, m, n, 47, y.data(), stream), Error);
}

TEST_CASE("device plug-in: what cannot be loaded is named") {
  CHECK_THROWS_AS(load_device_plugin("none_such"), Error);
  try {
    load_device_plugin("none_such");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::unsupported);
    CHECK(std::string(e.what()).find("libqllm_none_such.so") != std::string::npos);
  }
}
