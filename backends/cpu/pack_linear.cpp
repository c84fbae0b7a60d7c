#include "pack_linear.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <vector>

#include "block_packer.h"

namespace qllm::cpu {
namespace {

/// State of one linear, shared by the workers, who take the next block each.
struct Packing {
  const Weight& weight;
  const TensorSource& source;
  const VecKernels& vec;
  const Backend::PackFn& take;
  const std::vector<PackedRun>& runs;
  int term;
  int64_t blocks;  // of all runs
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void run() {
    BlockPacker packer(source, vec);
    std::vector<std::byte> codes;
    float scale[kBlockN];
    int32_t sum[kBlockN];
    for (int64_t i = next++; i < blocks && !stop; i = next++) {
      PackedBlock block = find(i);
      const PackedRun& of = runs[block.run];
      codes.resize(static_cast<size_t>(of.column_bytes()));
      packer.pack(weight, of, term, block.row, {codes.data(), scale, sum});
      block.view = {codes.data(), scale, sum};
      take(block);
    }
  }

  PackedBlock find(int64_t i) const {
    PackedBlock block;
    block.second_term = term == 2;
    for (; i >= runs[block.run].n / kBlockN; ++block.run) i -= runs[block.run].n / kBlockN;
    block.row = runs[block.run].n0 + i * kBlockN;
    return block;
  }
};

void run_packing(void* context, const Worker& /*worker*/) noexcept {
  auto& packing = *static_cast<Packing*>(context);
  try {
    packing.run();
  } catch (...) {
    const std::lock_guard lock(packing.error_mutex);
    if (!packing.error) packing.error = std::current_exception();
    packing.stop = true;
  }
}

void pack_runs(const Weight& weight, const std::vector<PackedRun>& runs, int term,
               const TensorSource& source, const VecKernels& vec, WorkerPool& pool,
               const Backend::PackFn& take) {
  int64_t blocks = 0;
  for (const PackedRun& run : runs) blocks += run.n / kBlockN;
  if (blocks == 0) return;
  Packing packing{weight, source, vec, take, runs, term, blocks, {}, {}, {}, {}};
  pool.drive([&] { pool.run(run_packing, &packing); });
  if (packing.error) std::rethrow_exception(packing.error);
}

}  // namespace

void pack_linear(const Weight& weight, const PackedLayout& layout, const TensorSource& source,
                 const VecKernels& vec, WorkerPool& pool, const Backend::PackFn& take) {
  pack_runs(weight, layout.runs, 1, source, vec, pool, take);
  pack_runs(weight, layout.second_terms, 2, source, vec, pool, take);
}

}  // namespace qllm::cpu
