// Memory bandwidth by worker count and page size: read, copy, triad. The read figure is the ceiling
// that the other programs print beside theirs. Bytes counted are those the program asks for: where
// stores first read their line (write-allocate), the bus moves a third more in copy and triad.
#include <fmt/format.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <iostream>

#include "core/math.h"
#include "kernels/vec.h"
#include "placed_memory.h"
#include "support.h"
#include "topology.h"
#include "worker_pool.h"

namespace {

using namespace qllm;
using namespace qllm::cpu;

enum class Op { read, copy, triad };

struct OpInfo {
  Op op;
  const char* name;
  int arrays;  // that one pass reads or writes
};
constexpr OpInfo kOps[] = {{Op::read, "read", 1}, {Op::copy, "copy", 2}, {Op::triad, "triad", 3}};

// Three arrays of each worker, in its node.
struct Arrays {
  PlacedBuffer a, b, c;
};

PlacedBuffer allocate(int64_t bytes, bool large, const Topology& topology, size_t worker) {
  PlacedBuffer buffer(static_cast<size_t>(bytes), {large, &topology, topology.workers()[worker]});
  if (!large) madvise(buffer.data(), buffer.bytes(), MADV_NOHUGEPAGE);
  return buffer;
}

struct Region {
  std::vector<Arrays>* arrays;
  uint32_t (*read_sum)(const void* p, int64_t bytes) noexcept;
  Op op;
  double seconds = 0;
  std::atomic<uint32_t> sum{0};
};

void run_op(Region& region, const Arrays& own) {
  const auto n = static_cast<int64_t>(own.a.bytes() / sizeof(double));
  const double* b = own.b.as<double>();
  const double* c = own.c.as<double>();
  double* a = own.a.as<double>();
  switch (region.op) {
    case Op::read:
      region.sum += region.read_sum(own.b.data(), static_cast<int64_t>(own.b.bytes()));
      break;
    case Op::copy:
      std::memcpy(a, b, own.a.bytes());
      break;
    case Op::triad:
      for (int64_t i = 0; i < n; ++i) a[i] = b[i] + 3.0 * c[i];
      break;
  }
}

void timed(void* context, const Worker& worker) noexcept {
  auto& region = *static_cast<Region*>(context);
  worker.barrier->wait();
  const auto begin = std::chrono::steady_clock::now();
  run_op(region, (*region.arrays)[static_cast<size_t>(worker.index)]);
  worker.barrier->wait();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (worker.index == 0) region.seconds = took.count();
}

void fill(void* context, const Worker& worker) noexcept {
  const Arrays& own =
      (*static_cast<std::vector<Arrays>*>(context))[static_cast<size_t>(worker.index)];
  for (const PlacedBuffer* buffer : {&own.a, &own.b, &own.c})
    std::memset(buffer->data(), 1, buffer->bytes());
}

struct Result {
  int workers;
  bool large;
  double large_share;  // of the bytes, as the system gave them
  const char* op;
  bench::Summary gbps;
};

void measure(int threads, bool large, int64_t bytes, int repeat, std::vector<Result>* results) {
  const auto topology = Topology::detect({threads, "", ""});
  WorkerPool pool(*topology);
  const int64_t share = round_up(ceil_div(bytes / 3, pool.count()), 4096);
  std::vector<Arrays> arrays;
  for (size_t i = 0; i < static_cast<size_t>(pool.count()); ++i) {
    arrays.push_back({allocate(share, large, *topology, i), allocate(share, large, *topology, i),
                      allocate(share, large, *topology, i)});
  }
  pool.drive([&] { pool.run(fill, &arrays); });
  const PlacedBuffer& first = arrays.front().b;
  const double large_share = static_cast<double>(large_page_bytes(first.data(), first.bytes())) /
                             static_cast<double>(first.bytes());
  for (const OpInfo& info : kOps) {
    Region region{&arrays, vec_kernels(best_isa()).read_sum, info.op};
    std::vector<double> gbps;
    for (int i = 0; i <= repeat; ++i) {
      pool.drive([&] { pool.run(timed, &region); });
      const double moved = static_cast<double>(share) * pool.count() * info.arrays;
      if (i > 0) gbps.push_back(moved / region.seconds / 1e9);  // the first one warms up
    }
    results->push_back(
        {pool.count(), large, std::max(0.0, large_share), info.name, bench::summarize(gbps)});
  }
}

void print_json(const std::vector<Result>& results, int64_t bytes) {
  nlohmann::json document = {{"unit", "GB/s"}, {"bytes", bytes}, {"isa", isa_name(best_isa())}};
  for (const Result& r : results) {
    document["results"].push_back({{"workers", r.workers},
                                   {"pages", r.large ? "large" : "4k"},
                                   {"large_share", r.large_share},
                                   {"op", r.op},
                                   {"gbps", bench::to_json(r.gbps)}});
  }
  std::cout << document.dump(2) << "\n";
}

void print_table(const std::vector<Result>& results) {
  double ceiling = 0;
  for (const Result& r : results) {
    if (r.op == kOps[0].name) ceiling = std::max(ceiling, r.gbps.median);
  }
  fmt::print("{:>7}  {:<6}  {:<5}  {:>8}  {:>8}  {:>8}  {:>12}\n", "workers", "pages", "op", "GB/s",
             "min", "max", "of best read");
  for (const Result& r : results) {
    fmt::print("{:>7}  {:<6}  {:<5}  {:>8.2f}  {:>8.2f}  {:>8.2f}  {:>10.0f} %\n", r.workers,
               r.large ? "large" : "4 KiB", r.op, r.gbps.median, r.gbps.min, r.gbps.max,
               100 * r.gbps.median / ceiling);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Memory bandwidth: read, copy and triad by worker count, on 4 KiB and on large pages.");
  bench::CommonFlags flags;
  flags.add_to(app);
  int64_t mib = 384;
  app.add_option("--mib", mib,
                 "MiB of all arrays together; take 12 times the last-level caches or more")
      ->capture_default_str()
      ->check(CLI::Range(3, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  try {
    std::vector<Result> results;
    const int most = static_cast<int>(Topology::detect({})->workers().size());
    for (const int workers : bench::worker_counts(flags, most)) {
      for (const bool large : {false, true})
        measure(workers, large, mib << 20, flags.repeat, &results);
    }
    flags.json ? print_json(results, mib << 20) : print_table(results);
  } catch (const std::exception& e) {
    std::cerr << "stream: error: " << e.what() << "\n";
    return 1;
  }
}
