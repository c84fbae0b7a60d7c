// CUDA on the host, for tests: kernels run thread by thread on fibers, warp by warp, and everything
// that CUDA leaves undefined is an error here: a warp that does not meet in full at a shuffle, a
// barrier that some threads never reach, a launch beyond the device's limits. Device memory is host
// memory from malloc, so that AddressSanitizer sees what kernels touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace qllm::cuda_host {

inline constexpr int kWarpSize = 32;

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

/// Where the running thread stands.
struct ThreadPlace {
  Index3 thread, block, block_size, grid_size;
};
const ThreadPlace& place();

/// Blocks until all threads of the block are here. Throws where one has ended or waits elsewhere.
void block_barrier();

/// Blocks until all 32 lanes of the warp have come with the same `run`, which is then called once
/// with the arguments of all lanes in order (lanes that the block does not have: null).
void warp_collective(void* args, void (*run)(void* const* args));

/// The block's dynamic shared memory; its bytes are garbage at the start of a block.
std::byte* shared_memory(size_t bytes_needed);

struct Shape {
  Index3 grid, block;
  size_t shared_bytes = 0;
};

/// Runs a kernel to its end on this thread and a few others. Throws std::runtime_error with the
/// kernel's name where something is wrong.
void run_kernel(const char* name, const Shape& shape, const std::function<void()>& body);

/// The order in which threads, warps and blocks get their turns: 0 ascending, 1 descending, others
/// by a shuffle from the number. A kernel that lacks a barrier gives another result under another.
void set_order(uint64_t order);
uint64_t order();

/// Kernels run so far.
int64_t kernels_run();

}  // namespace qllm::cuda_host
