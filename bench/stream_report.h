// What bench/stream found, as JSON and as tables.
#pragma once

#include <fmt/format.h>

#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "pages.h"
#include "stream_plan.h"
#include "support.h"

namespace qllm::bench {

struct VariantResult {
  ReadVariant variant;
  Summary gbps;
};

struct OpResult {
  int workers = 0;
  Pages pages = Pages::transparent;
  double large_share = 0;  // of the bytes, on large pages
  const MemoryOp* op = nullptr;
  Summary gbps;
};

struct NodeResult {
  NodePair pair;
  Summary gbps;
};

struct Results {
  std::vector<VariantResult> variants;  // best first
  std::vector<VariantResult> finals;    // of them the best, measured once more; best first
  std::vector<OpResult> ops;
  std::vector<NodeResult> nodes;
  std::vector<std::string> skipped;
  const VariantResult& best() const { return finals.front(); }
};

inline nlohmann::json variant_json(const VariantResult& r) {
  return {{"width", r.variant.width},
          {"streams", r.variant.streams},
          {"prefetch", prefetch_name(r.variant)},
          {"gbps", to_json(r.gbps)}};
}

inline void print_json(const Results& results, int64_t bytes) {
  nlohmann::json document = {{"unit", "GB/s"},
                             {"bytes", bytes},
                             {"isa", cpu::isa_name(cpu::best_isa())},
                             {"best", variant_json(results.best())},
                             {"skipped", results.skipped}};
  for (const VariantResult& r : results.variants) document["reads"].push_back(variant_json(r));
  for (const VariantResult& r : results.finals) document["finals"].push_back(variant_json(r));
  for (const OpResult& r : results.ops) {
    document["results"].push_back({{"workers", r.workers},
                                   {"pages", pages_name(r.pages)},
                                   {"large_share", r.large_share},
                                   {"op", r.op->name},
                                   {"transfers", r.op->transfers},
                                   {"gbps", to_json(r.gbps)}});
  }
  for (const NodeResult& r : results.nodes) {
    document["nodes"].push_back({{"worker_node", r.pair.worker_node},
                                 {"memory_node", r.pair.memory_node},
                                 {"workers", r.pair.workers.size()},
                                 {"gbps", to_json(r.gbps)}});
  }
  std::cout << document.dump(2) << "\n";
}

inline void print_row(const VariantResult& r) {
  fmt::print("{:>5}  {:>7}  {:<10}  {:>8.2f}  {:>8.2f}  {:>8.2f}\n", r.variant.width,
             r.variant.streams, prefetch_name(r.variant), r.gbps.median, r.gbps.min, r.gbps.max);
}

inline void print_variants(const Results& results) {
  fmt::print(
      "Reading, all workers, transparent large pages, GB/s (1e9 bytes): of {} variants the best "
      "of each width and number of streams\n{:>5}  {:>7}  {:<10}  {:>8}  {:>8}  {:>8}\n",
      results.variants.size(), "width", "streams", "prefetch", "median", "min", "max");
  std::vector<std::pair<int, int>> seen;
  for (const VariantResult& r : results.variants) {
    const std::pair<int, int> kind(r.variant.width, r.variant.streams);
    if (std::find(seen.begin(), seen.end(), kind) != seen.end()) continue;
    seen.push_back(kind);
    print_row(r);
  }
  fmt::print(
      "Once more, by turns: the best eight, and without prefetch the best of each number of "
      "streams\n");
  for (const VariantResult& r : results.finals) print_row(r);
}

inline void print_table(const Results& results) {
  print_variants(results);
  const auto& [v, best] = results.best();
  fmt::print("Best: loads of {} bytes, {} stream(s), prefetch {}: {:.2f} GB/s\n\n", v.width,
             v.streams, prefetch_name(v), best.median);
  fmt::print(
      "Bytes over the bus: an ordinary store counts twice (its line is read first and "
      "written later), a non-temporal one (nt) once\n{:>7}  {:<11}  {:>10}  {:<8}  {:>8}  "
      "{:>8}  {:>8}\n",
      "workers", "pages", "large", "op", "GB/s", "min", "max");
  for (const OpResult& r : results.ops) {
    fmt::print("{:>7}  {:<11}  {:>8.0f} %  {:<8}  {:>8.2f}  {:>8.2f}  {:>8.2f}\n", r.workers,
               pages_name(r.pages), 100 * r.large_share, r.op->name, r.gbps.median, r.gbps.min,
               r.gbps.max);
  }
  for (const std::string& line : results.skipped) fmt::print("skipped: {}\n", line);
  fmt::print("\n{:>7}  {:>11}  {:>9}  {:>8}  {:>8}  {:>8}\n", "node of", "workers", "memory on",
             "GB/s", "min", "max");
  for (const NodeResult& r : results.nodes) {
    fmt::print("{:>7}  {:>11}  {:>9}  {:>8.2f}  {:>8.2f}  {:>8.2f}\n", r.pair.worker_node,
               r.pair.workers.size(), r.pair.memory_node, r.gbps.median, r.gbps.min, r.gbps.max);
  }
}

}  // namespace qllm::bench
