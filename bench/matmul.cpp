// The kernels of the registries, int8 and in groups, and oneDNN, over (M, N, K): time, GB/s of
// weights, GOP/s, and percent of the read bandwidth that the same run measures. Each thread owns a
// share of N, as in a step; the weights of a case are at least --bytes, so that they come from
// memory.
//
//   bench/matmul [--json] [--repeat N] [--threads N] [--m M,M,...] [--shape N,K] [any flag of
//   Google Benchmark]
#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/ceiling.h"
#include "kernels/dispatch.h"
#include "kernels/group_dot.h"
#include "onednn/onednn_tiles.h"
#include "quant/packing.h"

namespace {

using namespace qllm;  // NOLINT

constexpr int64_t kBytes = int64_t{512} << 20;

template <typename T>
using Buffer = std::unique_ptr<T, void (*)(void*)>;

template <typename T>
Buffer<T> allocate(int64_t count) {
  const auto bytes = round_up(count * static_cast<int64_t>(sizeof(T)), int64_t{2} << 20);
  return {static_cast<T*>(std::aligned_alloc(size_t{2} << 20, static_cast<size_t>(bytes))),
          &std::free};
}

/// What the cases share: a memory of weights that no cache holds, and the read ceiling over it.
struct Arena {
  explicit Arena(int threads_in) : threads(threads_in), weights(allocate<int8_t>(kBytes)) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < kBytes; ++i) weights.get()[i] = static_cast<int8_t>(i * 37 >> 3);
    for (int i = 0; i < 5; ++i) ceiling = std::max(ceiling, read_once());
  }

  /// Bytes a second of one pass of all threads over the weights.
  double read_once() const {
    const cpu::ReadKernel& kernel = cpu::best_read_kernel();
    const int64_t share = kBytes / threads / 4096 * 4096;
    const auto start = std::chrono::steady_clock::now();
    uint32_t sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    sum += kernel.run({weights.get() + omp_get_thread_num() * share, share, 4});
    benchmark::DoNotOptimize(sum);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return static_cast<double>(share * threads) / took.count();
  }

  int threads;
  Buffer<int8_t> weights;
  double ceiling = 0;
};

/// One case: `layers` matrices [n, k] in a row, each split over the threads by blocks of outputs.
struct Case {
  int64_t m, n, k;
  int64_t layers() const { return std::max<int64_t>(1, m <= 64 ? kBytes / (n * k) : 1); }
};

struct Shard {
  int64_t begin, count;  // outputs
};

Shard shard_of(const Case& c, int thread, int threads) {
  const int64_t blocks = c.n / kBlockN;
  const int64_t begin = blocks * thread / threads;
  return {begin * kBlockN, (blocks * (thread + 1) / threads - begin) * kBlockN};
}

/// Outputs that one call computes, as a step does (backends/cpu/ops/linear.cpp): their sums stay in
/// L2 until the epilogue.
int64_t tile_columns(const Case& c, cpu::Isa isa) {
  const int64_t bytes = cpu::choose_dot(isa, c.m, c.n, c.k, false).sum_bytes;
  return std::max(kBlockN, bytes / 4 / c.m / kBlockN * kBlockN);
}

/// The counters of a case that read `bytes` and made `products` in each iteration.
void count(benchmark::State& state, const Arena& arena, double seconds, double bytes,
           double products) {
  const double passes = static_cast<double>(state.iterations()) / seconds;
  state.counters["GB/s"] = bytes * passes / 1e9;
  state.counters["GOP/s"] = 2e-9 * products * passes;
  state.counters["percent_of_read"] = 100 * bytes * passes / arena.ceiling;
  state.counters["read_GB/s"] = arena.ceiling / 1e9;
}

template <typename Run>
void measure(benchmark::State& state, const Arena& arena, const Case& c, int64_t columns,
             const Run& run) {
  const auto x = allocate<uint8_t>(c.m * c.k);
  std::vector<Buffer<int32_t>> acc;
  for (int t = 0; t < arena.threads; ++t) acc.push_back(allocate<int32_t>(c.m * columns));
  for (int64_t i = 0; i < c.m * c.k; ++i) x.get()[i] = static_cast<uint8_t>(i * 7);
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
#pragma omp parallel num_threads(arena.threads)
    {
      const int thread = omp_get_thread_num();
      const Shard s = shard_of(c, thread, arena.threads);
      for (int64_t layer = 0; layer < c.layers(); ++layer) {
        const int8_t* w = arena.weights.get() + layer * c.n * c.k + s.begin * c.k;
        for (int64_t n = 0; n < s.count; n += columns) {
          const int64_t count = std::min(columns, s.count - n);
          run(thread, cpu::DotArgs{x.get(), w + n * c.k, acc[static_cast<size_t>(thread)].get(),
                                   c.m, count, c.k, c.k, count});
        }
      }
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const auto bytes = static_cast<double>(c.layers() * c.n * c.k);
  count(state, arena, took.count(), bytes, bytes * static_cast<double>(c.m));
}

void bench_kernel(benchmark::State& state, const Arena& arena, const cpu::DotKernel& kernel,
                  const Case& c) {
  measure(state, arena, c, tile_columns(c, kernel.isa),
          [&](int, const cpu::DotArgs& args) { kernel.run(args); });
}

void bench_onednn(benchmark::State& state, const Arena& arena, const Case& c) {
  cpu::OnednnTiles tiles(arena.threads, c.m, c.m);
  for (int t = 0; t < arena.threads; ++t) {
    tiles.prepare(shard_of(c, t, arena.threads).count, c.k, c.k);
  }
  measure(state, arena, c, cpu::kOnednnColumns, [&](int thread, const cpu::DotArgs& args) {
    if (!tiles.run(args, thread)) std::abort();
  });
}

struct NamedFormat {
  const char* name;
  GroupFormat format;
};

constexpr NamedFormat kFormats[] = {
    {"int4-g32", {4, 32, GroupScales::f16_min}}, {"int4-g128", {4, 128, GroupScales::f16_min}},
    {"int4-g32-sym", {4, 32, GroupScales::f16}}, {"int4-g128-sym", {4, 128, GroupScales::f16}},
    {"q4_k", {4, 32, GroupScales::k_quant}},     {"int8-g32", {8, 32, GroupScales::f16}},
};

/// Weights in groups: the arena's bytes as records, whatever their scales say.
void bench_groups(benchmark::State& state, const Arena& arena, const cpu::GroupDotKernel& kernel,
                  const GroupFormat& format, const Case& c) {
  const int64_t k = format.padded_k(c.k);
  const int64_t groups = k / format.group;
  const int64_t bytes = c.n / kBlockN * format.column_bytes(k);
  const int64_t layers = c.m <= 64 ? kBytes / bytes : 1;
  const auto x = allocate<int8_t>(c.m * k);
  const auto y = allocate<float>(c.m * c.n);
  const std::vector<float> x_scale(static_cast<size_t>(c.m * groups), 1.0F);
  const std::vector<int32_t> x_sum(static_cast<size_t>(c.m * groups), 1);
  for (int64_t i = 0; i < c.m * k; ++i) x.get()[i] = static_cast<int8_t>(i * 7 % 127);
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
#pragma omp parallel num_threads(arena.threads)
    {
      const Shard s = shard_of(c, omp_get_thread_num(), arena.threads);
      const int64_t offset = s.begin / kBlockN * format.column_bytes(k);
      for (int64_t layer = 0; layer < layers; ++layer) {
        const auto* w = reinterpret_cast<const std::byte*>(arena.weights.get());
        kernel.run({format, x.get(), x_scale.data(), x_sum.data(), w + layer * bytes + offset,
                    y.get() + s.begin, c.m, s.count, k, k, groups, c.n});
      }
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  count(state, arena, took.count(), static_cast<double>(layers * bytes),
        static_cast<double>(layers * c.n * c.k * c.m));
}

void register_groups(const Arena& arena, const Case& c, const std::string& shape) {
  for (const cpu::GroupDotKernel& kernel : cpu::group_dot_kernels()) {
    if (!cpu::isa_available(kernel.isa) || kernel.isa == cpu::Isa::scalar) continue;
    for (const NamedFormat& named : kFormats) {
      const std::string name = std::string(kernel.name) + "/" + named.name + shape;
      benchmark::RegisterBenchmark(name.c_str(), bench_groups, std::cref(arena), std::cref(kernel),
                                   std::cref(named.format), c)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
}

void register_case(const Arena& arena, const Case& c) {
  const auto shape =
      "/M:" + std::to_string(c.m) + "/N:" + std::to_string(c.n) + "/K:" + std::to_string(c.k);
  const auto finish = [](benchmark::internal::Benchmark* b) {
    b->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (const cpu::DotKernel& kernel : cpu::dot_kernels()) {
    if (!cpu::isa_available(kernel.isa)) continue;
    finish(benchmark::RegisterBenchmark((kernel.name + shape).c_str(), bench_kernel,
                                        std::cref(arena), std::cref(kernel), c));
  }
  register_groups(arena, c, shape);
  if (cpu::onednn_accepts(cpu::best_isa())) {
    finish(benchmark::RegisterBenchmark(("onednn" + shape).c_str(), bench_onednn, std::cref(arena),
                                        c));
  }
}

struct Cases {
  std::vector<int64_t> tokens = {1, 2, 4, 6, 8, 12, 16, 32, 64, 512};
  std::vector<std::array<int64_t, 2>> shapes = {{4096, 4096}, {14336, 4096}, {1536, 576}};
};

/// "1,2,16" as numbers; what is no number ends the program (an exception of std::stoll).
std::vector<int64_t> numbers(const std::string& list) {
  std::vector<int64_t> out;
  std::istringstream in(list);
  for (std::string part; std::getline(in, part, ',');) out.push_back(std::stoll(part));
  return out;
}

/// The flags of all our benches, in Google Benchmark's own terms; the rest is passed on.
std::vector<std::string> translate(int argc, char** argv, int* threads, Cases* cases) {
  std::vector<std::string> out;
  for (int i = 0; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&](const char* flag) {
      if (arg == flag && i + 1 < argc) return std::string(argv[++i]);
      const std::string prefix = std::string(flag) + "=";
      return arg.compare(0, prefix.size(), prefix) == 0 ? arg.substr(prefix.size()) : std::string();
    };
    if (arg == "--json") {
      out.emplace_back("--benchmark_format=json");
    } else if (const std::string n = value("--repeat"); !n.empty()) {
      out.push_back("--benchmark_repetitions=" + n);
    } else if (const std::string t = value("--threads"); !t.empty()) {
      *threads = std::max(1, std::atoi(t.c_str()));
    } else if (const std::string m = value("--m"); !m.empty()) {
      cases->tokens = numbers(m);
    } else if (const std::string nk = value("--shape"); !nk.empty()) {
      const auto pair = numbers(nk);
      cases->shapes = {{pair.at(0), pair.at(1)}};
    } else {
      out.push_back(arg);
    }
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  int threads = omp_get_max_threads();
  Cases cases;
  std::vector<std::string> args = translate(argc, argv, &threads, &cases);
  std::vector<char*> pointers;
  for (std::string& arg : args) pointers.push_back(arg.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 2;
  const Arena arena(threads);
  for (const int64_t m : cases.tokens) {
    for (const auto& [n, k] : cases.shapes) register_case(arena, {m, n, k});
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
