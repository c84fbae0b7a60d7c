// Memory bandwidth: the best way to read, found by trying; then read, copy and triad by worker
// count and kind of page, and reads across memory nodes. The best read is the ceiling of decode.
// Passes of what is compared alternate, so that a machine whose bandwidth moves is fair to all.
#include <fmt/format.h>

#include <functional>
#include <iostream>

#include "core/error.h"
#include "core/math.h"
#include "pages.h"
#include "stream_pass.h"
#include "stream_report.h"
#include "support.h"

namespace {

using namespace qllm;
using namespace qllm::bench;

/// The best eight, and the best of each number of streams without prefetch.
std::vector<ReadVariant> finalists(const std::vector<VariantResult>& sorted) {
  std::vector<ReadVariant> chosen;
  std::vector<int> plain;  // streams
  for (size_t i = 0; i < sorted.size(); ++i) {
    const ReadVariant& v = sorted[i].variant;
    const bool first = v.prefetch == cpu::Prefetch::none &&
                       std::find(plain.begin(), plain.end(), v.streams) == plain.end();
    if (first) plain.push_back(v.streams);
    if (i < 8 || first) chosen.push_back(v);
  }
  return chosen;
}

struct Settings {
  CommonFlags flags;
  int64_t bytes = int64_t{512} << 20;
  bool quick = false;
};

/// Runs all passes by turns, `repeat` times each after one that warms up.
std::vector<Summary> measure_by_turns(cpu::WorkerPool& pool, std::vector<Pass>& passes,
                                      int repeat) {
  std::vector<std::vector<double>> values(passes.size());
  for (int round = 0; round <= repeat; ++round) {
    for (size_t i = 0; i < passes.size(); ++i) {
      const double gbps = passes[i].gbps(pool);
      if (round > 0) values[i].push_back(gbps);
    }
  }
  std::vector<Summary> summaries;
  for (const std::vector<double>& v : values) summaries.push_back(summarize(v));
  return summaries;
}

/// Memory of all workers of a pool on one kind of page.
struct Arena {
  Pages pages;
  std::vector<PagedMemory> memory;  // [workers]
  std::vector<Lane> lanes;          // [workers]; empty where the system has no such pages

  Arena(Pages kind, int64_t bytes, const cpu::Topology& topology, cpu::WorkerPool& pool,
        std::string* why)
      : pages(kind) {
    const int64_t share = round_up(ceil_div(bytes, int64_t{pool.count()}), int64_t{2} << 20);
    for (size_t i = 0; i < static_cast<size_t>(pool.count()); ++i) {
      memory.emplace_back(share, kind, topology, topology.workers()[i], why);
      if (memory.back().data() == nullptr) {
        lanes.clear();
        return;
      }
      lanes.push_back({memory.back().data(), share});
    }
    Pass::fill(pool, lanes);
  }

  double large_share() const {
    if (pages == Pages::reserved) return 1.0;
    const Lane& first = lanes.front();
    const int64_t large = cpu::large_page_bytes(first.data, static_cast<size_t>(first.bytes));
    return static_cast<double>(std::max<int64_t>(large, 0)) / static_cast<double>(first.bytes);
  }
};

/// Sorted by median, the best first.
std::vector<VariantResult> compare(cpu::WorkerPool& pool, const Arena& arena,
                                   const std::vector<ReadVariant>& variants, int repeat) {
  std::vector<Pass> passes;
  for (const ReadVariant& v : variants) passes.emplace_back(arena.lanes, kMemoryOps[0], v);
  const std::vector<Summary> gbps = measure_by_turns(pool, passes, repeat);
  std::vector<VariantResult> results;
  for (size_t i = 0; i < variants.size(); ++i) results.push_back({variants[i], gbps[i]});
  std::stable_sort(results.begin(), results.end(),
                   [](const auto& a, const auto& b) { return a.gbps.median > b.gbps.median; });
  return results;
}

/// All variants, then the best of them once more: the best of many noisy medians flatters itself.
void search_variants(const Settings& settings, Results* results) {
  const auto topology = cpu::Topology::detect({settings.flags.threads, "", ""});
  cpu::WorkerPool pool(*topology);
  std::string why;
  const Arena arena(Pages::transparent, settings.bytes, *topology, pool, &why);
  std::vector<int> widths;
  for (const cpu::ReadKernel& k : cpu::read_kernels()) {
    if (cpu::isa_available(k.isa)) widths.push_back(k.width);
  }
  results->variants =
      compare(pool, arena, read_variants(widths, settings.quick), settings.flags.repeat);
  results->finals = compare(pool, arena, finalists(results->variants), 3 * settings.flags.repeat);
}

void measure_ops(const Settings& settings, int workers, Results* results) {
  const auto topology = cpu::Topology::detect({workers, "", ""});
  cpu::WorkerPool pool(*topology);
  std::vector<Arena> arenas;
  std::vector<Pass> passes;
  arenas.reserve(3);
  for (const Pages pages : {Pages::small, Pages::transparent, Pages::reserved}) {
    std::string why;
    arenas.emplace_back(pages, settings.bytes, *topology, pool, &why);
    if (!why.empty()) {
      results->skipped.push_back(
          fmt::format("{} worker(s), {}: {}", workers, pages_name(pages), why));
    }
    for (const MemoryOp& op : kMemoryOps) {
      if (arenas.back().lanes.empty()) continue;
      passes.emplace_back(arenas.back().lanes, op, results->best().variant);
      results->ops.push_back({pool.count(), pages, arenas.back().large_share(), &op, {}});
    }
  }
  const std::vector<Summary> gbps = measure_by_turns(pool, passes, settings.flags.repeat);
  OpResult* row = &results->ops.back() + 1 - gbps.size();
  for (const Summary& summary : gbps) (row++)->gbps = summary;
}

void measure_nodes(const Settings& settings, Results* results) {
  const auto topology = cpu::Topology::detect({settings.flags.threads, "", ""});
  cpu::WorkerPool pool(*topology);
  const std::vector<NodePair> pairs = node_pairs(topology->workers());
  const int64_t bytes = round_up(settings.bytes, int64_t{2} << 20);
  std::vector<PagedMemory> memory;  // one for each node, touched by its own first worker
  std::vector<std::pair<int, Lane>> of_node;
  for (const NodePair& pair : pairs) {
    if (pair.worker_node != pair.memory_node) continue;
    std::string why;
    const auto first = static_cast<size_t>(pair.workers.front());
    memory.emplace_back(bytes, Pages::transparent, *topology, topology->workers()[first], &why);
    std::vector<Lane> lanes(static_cast<size_t>(pool.count()));
    lanes[first] = {memory.back().data(), bytes};
    Pass::fill(pool, lanes);
    of_node.emplace_back(pair.worker_node, lanes[first]);
  }
  std::vector<std::vector<Lane>> lanes;  // of each pair
  std::vector<Pass> passes;
  lanes.reserve(pairs.size());
  for (const NodePair& pair : pairs) {
    lanes.emplace_back(static_cast<size_t>(pool.count()));
    const auto count = static_cast<int>(pair.workers.size());
    const auto node = std::find_if(of_node.begin(), of_node.end(),
                                   [&](const auto& n) { return n.first == pair.memory_node; });
    for (int k = 0; k < count; ++k) {
      const int64_t begin = part_begin(bytes, k, count);
      lanes.back()[static_cast<size_t>(pair.workers[static_cast<size_t>(k)])] = {
          node->second.data + begin, part_begin(bytes, k + 1, count) - begin};
    }
    passes.emplace_back(lanes.back(), kMemoryOps[0], results->best().variant);
  }
  const std::vector<Summary> gbps = measure_by_turns(pool, passes, settings.flags.repeat);
  for (size_t i = 0; i < pairs.size(); ++i) results->nodes.push_back({pairs[i], gbps[i]});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Memory bandwidth: the best way to read; read, copy and triad by worker count and kind of "
      "page; reads across memory nodes.");
  Settings settings;
  settings.flags.add_to(app);
  app.add_option("--bytes", settings.bytes,
                 "what all workers together stream, such as 512MiB; take four times the last-level "
                 "caches or more")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1} << 20, int64_t{1} << 44));
  app.add_flag("--quick", settings.quick, "few variants, the widest loads only");
  CLI11_PARSE(app, argc, argv);
  try {
    Results results;
    search_variants(settings, &results);
    const int most = static_cast<int>(cpu::Topology::detect({})->workers().size());
    for (const int workers : worker_counts(settings.flags, most)) {
      measure_ops(settings, workers, &results);
    }
    measure_nodes(settings, &results);
    settings.flags.json ? print_json(results, settings.bytes) : print_table(results);
  } catch (const std::exception& e) {
    std::cerr << "stream: error: " << e.what() << "\n";
    return 1;
  }
}
