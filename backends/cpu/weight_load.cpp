#include "weight_load.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>

#include "block_packer.h"
#include "core/error.h"
#include "core/math.h"

namespace qllm::cpu {
namespace {

constexpr int kPopulateRead = 22;             // MADV_POPULATE_READ, Linux 5.14
constexpr int64_t kAhead = int64_t{4} << 20;  // read from the disk while the bytes before are used

/// The whole pages of [p, p+bytes), grown or shrunk to their borders.
struct Pages {
  std::byte* begin;
  size_t bytes;
};

Pages pages_around(const std::byte* p, int64_t bytes) {
  constexpr uintptr_t kPage = 4096;
  const auto from = reinterpret_cast<uintptr_t>(p) / kPage * kPage;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(p) + static_cast<uintptr_t>(bytes) + kPage - 1);
  return {reinterpret_cast<std::byte*>(from), to / kPage * kPage - from};
}

/// Brings a part of a mapped file into memory and into the page tables in one call. A read that
/// the disk or a shortened file refuses would end the process when the bytes are used; here it is
/// an error. Kernels before 5.14 fault the pages as they are used.
void populate(const std::byte* p, int64_t bytes, const std::string& name) {
  const Pages pages = pages_around(p, bytes);
  const int result = madvise(pages.begin, pages.bytes, kPopulateRead);
  require(result == 0 || errno != EFAULT, ErrorCode::io,
          "weight {}: the file could not be read, or it was shortened", name);
}

void read_ahead(const std::byte* p, int64_t bytes) {
  if (bytes <= 0) return;
  const Pages pages = pages_around(p, bytes);
  madvise(pages.begin, pages.bytes, MADV_WILLNEED);
}

/// The copied part of a mapped file counts as this process's memory no more.
void release(const std::byte* p, int64_t bytes) {
  const Pages pages = pages_around(p, bytes);
  madvise(pages.begin, pages.bytes, MADV_DONTNEED);
}

/// State of one parallel load, shared by the workers.
struct Load {
  const Graph& graph;
  const TensorSource& source;
  const VecKernels& vec;
  const std::vector<ShardedLinear>& linears;
  const ProgressFn& progress;
  int64_t total_bytes = 1;
  std::atomic<int64_t> done_bytes{0};
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void report(int64_t bytes, int worker) {
    const int64_t done = done_bytes += bytes;
    if (worker != 0 || !progress) return;
    const double fraction = static_cast<double>(done) / static_cast<double>(total_bytes);
    require(progress("loading", std::min(fraction, 1.0)), ErrorCode::cancelled,
            "loading: cancelled");
  }
};

/// One worker's part of it.
class Loader {
 public:
  Loader(Load& load, int worker) : load_(load), worker_(worker), packer_(load.source, load.vec) {}

  void run() {
    for (size_t i = 0; i < load_.linears.size() && !load_.stop; ++i) {
      if (load_.linears[i].shards.empty() || load_.linears[i].in_file) continue;
      const Weight& weight = load_.graph.weights[i];
      const Shard& shard = load_.linears[i].shards[static_cast<size_t>(worker_)];
      const PackedLinear* packed = load_.source.packed(weight.name);
      if (packed == nullptr) {
        for (const Piece& piece : shard.pieces) pack(weight, piece, 1);
        for (const Piece& piece : shard.second_terms) pack(weight, piece, 2);
        continue;
      }
      for (const Piece& piece : shard.pieces) {
        copy(weight, piece, {*packed, packed->layout.runs, packed->runs, packed->checks});
      }
      for (const Piece& piece : shard.second_terms) {
        copy(weight, piece,
             {*packed, packed->layout.second_terms, packed->second_terms, packed->second_checks});
      }
    }
  }

 private:
  /// One list of runs of a packed linear.
  struct Runs {
    const PackedLinear& linear;
    const std::vector<PackedRun>& runs;
    const std::vector<const std::byte*>& at;
    const std::vector<std::span<const uint64_t>>& checks;
  };

  // The pieces of a shard that is not in a file lie in the worker's own memory.
  static BlockTarget target(const Piece& piece, int64_t row) {
    const PackedView at = from_row(piece, {piece.w, piece.scale, piece.sum}, row);
    return {const_cast<std::byte*>(at.codes), const_cast<float*>(at.scale),
            const_cast<int32_t*>(at.sum)};
  }

  void pack(const Weight& weight, const Piece& piece, int term) {
    for (int64_t row = piece.n0; row < piece.end() && !load_.stop; row += kBlockN) {
      packer_.pack(weight, piece, term, row, target(piece, row));
      release_source(piece.column_bytes());
      load_.report(piece.column_bytes(), worker_);
    }
  }

  /// Now and then: so that the model's file does not count beside the weights.
  void release_source(int64_t packed) {
    constexpr int64_t kEvery = int64_t{16} << 20;
    packed_ += packed;
    if (packed_ < kEvery) return;
    load_.source.release();
    packed_ = 0;
  }

  /// The piece's blocks out of the run that it is a part of. Pages of the file are given back, so
  /// that the weights do not count twice.
  void copy(const Weight& weight, const Piece& piece, const Runs& from) {
    size_t r = 0;
    while (from.runs[r].end() <= piece.n0) ++r;
    const PackedRun& run = from.runs[r];
    const PackedView whole = view_of(run, from.at[r]);
    const int64_t step = std::max<int64_t>(kAhead / run.column_bytes(), 1) * kBlockN;
    const auto codes = [&](int64_t row) { return from_row(run, whole, row).codes; };
    for (int64_t row = piece.n0; row < piece.end() && !load_.stop; row += step) {
      const int64_t end = std::min(row + step, piece.end());
      const int64_t bytes = codes(end) - codes(row);
      if (from.linear.in_file) {
        read_ahead(codes(end), codes(std::min(end + step, piece.end())) - codes(end));
        populate(codes(row), bytes, weight.name);
      }
      for (int64_t n = row; n < end; n += kBlockN) copy_block(weight, piece, from, r, n);
      if (from.linear.in_file) release(codes(row), bytes);
      load_.report(bytes, worker_);
    }
  }

  void copy_block(const Weight& weight, const Piece& piece, const Runs& from, size_t r,
                  int64_t row) {
    const PackedRun& run = from.runs[r];
    const PackedView block = from_row(run, view_of(run, from.at[r]), row);
    const BlockTarget to = target(piece, row);
    std::memcpy(to.codes, block.codes, static_cast<size_t>(run.column_bytes()));
    if (!run.in_groups()) {
      std::memcpy(to.scale, block.scale, kBlockN * sizeof(float));
      std::memcpy(to.sum, block.sum, kBlockN * sizeof(int32_t));
    }
    if (from.checks.empty()) return;
    const uint64_t expected = from.checks[r][static_cast<size_t>((row - run.n0) / kBlockN)];
    // What is used is what is compared: the copy.
    const uint64_t found = block_checksum(run, {to.codes, to.scale, to.sum}, row, from.linear.seed);
    require(found == expected, ErrorCode::bad_format, "{}",
            damaged_block(from.linear, weight.name, row, found, expected));
  }

  Load& load_;
  int worker_;
  int64_t packed_ = 0;  // bytes since the source's pages were given back
  BlockPacker packer_;
};

void run_load(void* context, const Worker& worker) noexcept {
  auto& load = *static_cast<Load*>(context);
  try {
    Loader(load, worker.index).run();
  } catch (...) {
    const std::lock_guard lock(load.error_mutex);
    if (!load.error) load.error = std::current_exception();
    load.stop = true;
  }
}

int64_t code_bytes(const std::vector<ShardedLinear>& linears) {
  int64_t bytes = 0;
  for (const ShardedLinear& linear : linears) {
    if (linear.in_file) continue;
    for (const Shard& shard : linear.shards) {
      for (const Piece& piece : shard.pieces) bytes += piece.code_bytes();
      for (const Piece& piece : shard.second_terms) bytes += piece.code_bytes();
    }
  }
  return bytes;
}

}  // namespace

void load_shards(const Graph& graph, const TensorSource& source, const VecKernels& vec,
                 const std::vector<ShardedLinear>& linears, WorkerPool& pool,
                 const ProgressFn& progress) {
  Load load{graph, source, vec, linears, progress, std::max<int64_t>(code_bytes(linears), 1),
            {},    {},     {},  {}};
  pool.drive([&] { pool.run(run_load, &load); });
  if (load.error) std::rethrow_exception(load.error);
}

}  // namespace qllm::cpu
