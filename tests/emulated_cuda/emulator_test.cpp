// The emulated device itself: that it finds what CUDA leaves undefined.
#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_host/device_memory.h"
#include "cuda_host/runtime.h"
#include "kernels/device.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

/// Reverses 64 values through shared memory; without the barrier it reads what is not there yet,
/// but what the block before left: another block's values.
void reverse(bool barrier, int* out) {
  __shared__ int values[64];
  const int block = static_cast<int>(blockIdx.x) * 64;
  values[threadIdx.x] = block + static_cast<int>(threadIdx.x);
  if (barrier) __syncthreads();
  out[block + static_cast<int>(threadIdx.x)] = values[63 - threadIdx.x];
}

std::string run(const std::function<void()>& body, unsigned threads = 64, unsigned blocks = 1,
                size_t shared = 0) {
  try {
    cuda_host::run_kernel("test", {{blocks, 1, 1}, {threads, 1, 1}, shared}, body);
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "";
}

/// Values that a kernel leaves under each order.
std::vector<std::vector<int>> under_orders(const std::function<void(int*)>& body) {
  std::vector<std::vector<int>> all;
  for (const uint64_t order : {0, 1, 5}) {
    cuda_host::set_order(order);
    std::vector<int> out(128);
    REQUIRE(run([&] { body(out.data()); }, 64, 2).empty());
    all.push_back(out);
  }
  cuda_host::set_order(0);
  return all;
}

}  // namespace

TEST_CASE("emulated cuda: a missing barrier shows under another order") {
  const auto good = under_orders([](int* out) { reverse(true, out); });
  CHECK(good[0] == good[1]);
  CHECK(good[0] == good[2]);
  for (int i = 0; i < 64; ++i) CHECK(good[0][static_cast<size_t>(i)] == 63 - i);
  const auto bad = under_orders([](int* out) { reverse(false, out); });
  CHECK((bad[0] != good[0] || bad[1] != good[0] || bad[2] != good[0]));
}

TEST_CASE("emulated cuda: what CUDA leaves undefined is an error") {
  CHECK(run([] {
          if (threadIdx.x < 40) __syncthreads();
        }).find("wait for each other") != std::string::npos);
  CHECK(run([] {
          if (threadIdx.x % 2 == 0) static_cast<void>(warp_sum(1));
        }).find("wait for each other") != std::string::npos);
  CHECK(run([] {
          if (threadIdx.x % 2 == 0) {
            static_cast<void>(warp_sum(1));
          } else {
            static_cast<void>(shuffle(1.0F, 0));
          }
        }).find("different operations") != std::string::npos);
  CHECK(run([] {}, 33).find("a launch of") != std::string::npos);
  CHECK(run([] {}, 2048).find("a launch of") != std::string::npos);
  CHECK(run([] {}, 32, 1, size_t{300} << 10).find("a launch of") != std::string::npos);
  CHECK(run([] { throw std::runtime_error("a fault"); }) == "kernel test: a fault");
  CHECK(run([] { __syncthreads(); }).empty());  // it goes on behind all that
}

TEST_CASE("emulated cuda: captured work runs when its graph is launched, each time") {
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  int ran = 0;
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  cuda_host::enqueue(stream, [&] { ++ran; });
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(ran == 0);
  cudaGraphExec_t exec = nullptr;
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
  CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
  CHECK(ran == 2);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST_CASE("emulated cuda: exchanges and sums of a warp") {
  std::vector<int> out(64), sums(64), from(64);
  REQUIRE(run([&] {
            const int v = static_cast<int>(threadIdx.x);
            out[threadIdx.x] = shuffle_xor(v, 5);
            from[threadIdx.x] = shuffle(v, 7);
            sums[threadIdx.x] = warp_sum(v);
          }).empty());
  for (int i = 0; i < 64; ++i) {
    const auto at = static_cast<size_t>(i);
    CHECK(out[at] == (i ^ 5));
    CHECK(from[at] == i / 32 * 32 + 7);
    CHECK(sums[at] == (i < 32 ? 496 : 496 + 1024));
  }
}
