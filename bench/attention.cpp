// Attention alone, over as many layers of cache as no cache of the processor holds: time, GB/s of
// keys, values and scales, percent of the read ceiling of the same workers before and after, and
// TOPS (two for each multiply-add of q k and p v).
//
//   bench/attention [--heads 32] [--kv-heads 8] [--head-dim 64] [--context 8192] [--batch 1]
//                   [--format bf16|int8] [--prefill N] [--isa TIER] [--json] [--repeat N]
//                   [--threads N]
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <iostream>
#include <random>

#include "bandwidth.h"
#include "cpu_backend.h"
#include "kernels/vec.h"
#include "kv_layout.h"
#include "ops/attention_run.h"
#include "placed_memory.h"
#include "support.h"
#include "topology.h"
#include "worker_pool.h"

namespace {

using namespace qllm;
using namespace qllm::cpu;

struct Shape {
  int64_t heads = 32;
  int64_t kv_heads = 8;
  int64_t head_dim = 64;
  int64_t context = 8192;  // tokens cached when the step ends
  int64_t batch = 1;       // sequences
  int64_t tokens = 1;      // of each sequence in the step
  int64_t window = 0;
  int64_t megabytes = 512;  // of cache at least
};

/// [sequence][block][layer][head], as the cpu's storage has it: a head's blocks lie far apart.
class Cache {
 public:
  Cache(const Shape& s, KvFormat format, const Topology& topology)
      : blocks_((s.context + kKvBlockTokens - 1) / kKvBlockTokens),
        heads_(s.kv_heads),
        head_bytes_(kv_head_bytes(format, s.head_dim)) {
    const int64_t layer_bytes = s.batch * blocks_ * heads_ * head_bytes_;
    layers_ = std::max<int64_t>(1, (s.megabytes << 20) / layer_bytes);
    bytes_ = layers_ * layer_bytes;
    memory_ = PlacedBuffer(static_cast<size_t>(bytes_), {true, &topology, topology.workers()[0]});
    fill(s, format);
  }

  const std::byte* head(int64_t sequence, int64_t block, int64_t layer, int64_t head) const {
    return memory_.as<std::byte>() +
           (((sequence * blocks_ + block) * layers_ + layer) * heads_ + head) * head_bytes_;
  }
  int64_t layers() const { return layers_; }
  int64_t head_bytes() const { return head_bytes_; }
  int64_t bytes() const { return bytes_; }
  /// -1 where it cannot be told.
  int64_t large_page_bytes() const {
    return cpu::large_page_bytes(memory_.data(), memory_.bytes());
  }

 private:
  /// One head's worth of random tokens, everywhere.
  void fill(const Shape& s, KvFormat format) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(s.head_dim));
    for (int64_t t = 0; t < kKvBlockTokens; ++t) {
      for (float& v : x) v = normal(random);
      write_kv_key(vec_kernels(best_isa()), format, s.head_dim, x.data(), t,
                   memory_.as<std::byte>());
      write_kv_value(vec_kernels(best_isa()), format, s.head_dim, x.data(), t,
                     memory_.as<std::byte>());
    }
    for (int64_t at = head_bytes_; at < bytes_; at += head_bytes_) {
      std::memcpy(memory_.as<std::byte>() + at, memory_.data(), static_cast<size_t>(head_bytes_));
    }
  }

  int64_t blocks_;
  int64_t heads_;
  int64_t head_bytes_;
  int64_t layers_ = 1;
  int64_t bytes_ = 0;
  PlacedBuffer memory_;
};

struct Step {
  const Cache* cache = nullptr;
  AttentionCall call;
  double seconds = 0;
};

void run_layers(void* context, const Worker& worker) noexcept {
  auto& step = *static_cast<Step*>(context);
  worker.barrier->wait();
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t layer = 0; layer < step.cache->layers(); ++layer) {
    const auto block_of = [&](int64_t sequence, int64_t head, int64_t block) {
      return step.cache->head(sequence, block, layer, head);
    };
    attend_pieces(step.call, worker.index, block_of);
    worker.barrier->wait();
    if (!step.call.schedule->has_cuts()) continue;
    merge_pieces(step.call, worker.index);
    worker.barrier->wait();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (worker.index == 0) step.seconds = took.count();
}

struct Result {
  KvFormat format;
  int workers;
  bench::Summary milliseconds;  // of one layer
  bench::Summary gbps;
  bench::Summary ceiling;
  bench::Summary percent;  // of the ceiling, pair by pair
  bench::Summary tops;
  int64_t cache_bytes;
  int64_t large_page_bytes;
};

/// Multiply-adds of one layer, twice.
double operations(const Shape& s) {
  double seen = 0;
  for (int64_t t = s.context - s.tokens; t < s.context; ++t) {
    seen += static_cast<double>(s.window > 0 ? std::min(t + 1, s.window) : t + 1);
  }
  return 4.0 * seen * static_cast<double>(s.batch * s.heads * s.head_dim);
}

/// Bytes of the blocks that the last token sees, once: what a step must read.
double bytes_of_layer(const Shape& s, const Cache& cache) {
  const int64_t first =
      s.window > 0 ? std::max<int64_t>(0, s.context - s.tokens + 1 - s.window) : 0;
  const int64_t blocks = (s.context - 1) / kKvBlockTokens - first / kKvBlockTokens + 1;
  return static_cast<double>(s.batch * blocks * s.kv_heads * cache.head_bytes());
}

Result measure(const Shape& s, KvFormat format, int threads, Isa isa, int repeat) {
  const auto topology = Topology::detect({threads, "", ""});
  WorkerPool pool(*topology);
  const Cache cache(s, format, *topology);
  std::vector<KvSlice> slices(static_cast<size_t>(s.batch));
  for (int64_t i = 0; i < s.batch; ++i) {
    KvSlice& slice = slices[static_cast<size_t>(i)];
    slice.past = s.context - s.tokens;
    slice.first = i * s.tokens;
    slice.count = s.tokens;
  }
  const AttentionShape shape{s.head_dim, s.heads / s.kv_heads, s.kv_heads};
  AttentionSchedule schedule(shape, s.window);
  const KvHeadGroup team{0, s.kv_heads, 0, pool.count()};
  schedule.build(slices, {&team, 1}, pool.count());
  Scratch scratch(*topology);
  scratch.reserve(static_cast<size_t>(AttentionMemory::bytes(shape)));
  std::vector<float> q(static_cast<size_t>(s.batch * s.tokens * s.heads * s.head_dim));
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  for (float& v : q) v = normal(random);
  std::vector<float> out(q.size());

  Step step;
  step.cache = &cache;
  const AttendTable& table = attend_table(isa);
  step.call.schedule = &schedule;
  step.call.kernels = format == KvFormat::int8 ? &table.int8 : &table.bf16;
  step.call.slices = slices;
  step.call.scratch = &scratch;
  step.call.q = q.data();
  step.call.out = out.data();
  step.call.ldq = step.call.ldout = s.heads * s.head_dim;
  step.call.shape = shape;
  step.call.scale = 0.125F;
  ReadBandwidth bandwidth(pool, *topology, s.megabytes << 20);
  std::vector<double> ms, gbps, ceiling, percent, tops;
  for (int i = 0; i <= repeat; ++i) {
    const double before = bandwidth.measure();
    pool.drive([&] { pool.run(run_layers, &step); });
    const double read = (before + bandwidth.measure()) / 2;
    if (i == 0) continue;  // warms up
    const double seconds = step.seconds / static_cast<double>(cache.layers());
    ms.push_back(seconds * 1e3);
    gbps.push_back(bytes_of_layer(s, cache) / seconds / 1e9);
    ceiling.push_back(read);
    percent.push_back(100 * gbps.back() / read);
    tops.push_back(operations(s) / seconds / 1e12);
  }
  using bench::summarize;
  return {format,          pool.count(),       summarize(ms),
          summarize(gbps), summarize(ceiling), summarize(percent),
          summarize(tops), cache.bytes(),      cache.large_page_bytes()};
}

const char* name_of(KvFormat format) { return format == KvFormat::int8 ? "int8" : "bf16"; }

void print_json(const Shape& s, Isa isa, const std::vector<Result>& results) {
  nlohmann::json document = {{"isa", isa_name(isa)},   {"heads", s.heads},
                             {"kv_heads", s.kv_heads}, {"head_dim", s.head_dim},
                             {"context", s.context},   {"batch", s.batch},
                             {"tokens", s.tokens},     {"window", s.window}};
  for (const Result& r : results) {
    document["results"].push_back({{"format", name_of(r.format)},
                                   {"workers", r.workers},
                                   {"ms_per_layer", bench::to_json(r.milliseconds)},
                                   {"gbps", bench::to_json(r.gbps)},
                                   {"read_gbps", bench::to_json(r.ceiling)},
                                   {"percent_of_read", bench::to_json(r.percent)},
                                   {"tops", bench::to_json(r.tops)},
                                   {"cache_bytes", r.cache_bytes},
                                   {"large_page_bytes", r.large_page_bytes}});
  }
  std::cout << document.dump(2) << '\n';
}

void print_table(const Shape& s, Isa isa, const std::vector<Result>& results) {
  std::cout << fmt::format(
      "{} heads, {} KV heads, head_dim {}, context {}, {} sequences x {} tokens, {}\n\n"
      "format  workers   ms/layer      GB/s  (ceiling)  percent (min-max)    TOPS\n",
      s.heads, s.kv_heads, s.head_dim, s.context, s.batch, s.tokens, isa_name(isa));
  for (const Result& r : results) {
    std::cout << fmt::format(
        "{:6} {:8} {:10.3f} {:9.1f} {:10.1f} {:8.0f} ({:.0f}-{:.0f}) {:11.3f}\n", name_of(r.format),
        r.workers, r.milliseconds.median, r.gbps.median, r.ceiling.median, r.percent.median,
        r.percent.min, r.percent.max, r.tops.median);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Attention: time, bandwidth and operations");
  bench::CommonFlags flags;
  flags.add_to(app);
  Shape shape;
  std::string format;
  std::string isa;
  app.add_option("--heads", shape.heads, "query heads")->capture_default_str();
  app.add_option("--kv-heads", shape.kv_heads, "KV heads")->capture_default_str();
  app.add_option("--head-dim", shape.head_dim)->capture_default_str()->check(CLI::Range(1, 512));
  app.add_option("--context", shape.context, "tokens cached")->capture_default_str();
  app.add_option("--batch", shape.batch, "sequences")->capture_default_str();
  app.add_option("--prefill", shape.tokens, "tokens of each sequence in the step; 1: decode")
      ->capture_default_str();
  app.add_option("--window", shape.window, "tokens seen; 0: all")->capture_default_str();
  app.add_option("--megabytes", shape.megabytes, "of cache, all layers; 64 at least")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{64}, int64_t{1} << 24));
  app.add_option("--format", format, "bf16 or int8; both where it is not given")
      ->check(CLI::IsMember({"bf16", "int8"}));
  app.add_option("--isa", isa, "kernel tier; the best where it is not given");
  CLI11_PARSE(app, argc, argv);
  if (shape.kv_heads < 1 || shape.heads % shape.kv_heads != 0 || shape.batch < 1 ||
      shape.tokens < 1 || shape.context < shape.tokens) {
    std::cerr << "attention: heads must divide by KV heads, the context hold the tokens\n";
    return 2;
  }
  try {
    std::vector<Result> results;
    const int most = static_cast<int>(Topology::detect({})->workers().size());
    for (const int threads : bench::worker_counts(flags, most)) {
      for (const KvFormat f : {KvFormat::bf16, KvFormat::int8}) {
        if (!format.empty() && format != name_of(f)) continue;
        results.push_back(measure(shape, f, threads, choose_isa(isa), flags.repeat));
      }
    }
    flags.json ? print_json(shape, choose_isa(isa), results)
               : print_table(shape, choose_isa(isa), results);
  } catch (const std::exception& e) {
    std::cerr << "attention: error: " << e.what() << "\n";
    return 1;
  }
  return 0;
}
