// Attention of several tokens a sequence, emulated.
#include "kernels/attention_prefill.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "cuda_host/runtime.h"
#include "emulated_cuda/attention_oracle.h"
#include "kernels/attention_decode.h"
#include "kernels/device_half.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT
using test::AttentionRows;
using test::PagedStep;
using test::TestSlice;

namespace {

constexpr KvFormat kFormats[] = {KvFormat::bf16, KvFormat::int8, KvFormat::f16};

struct Case {
  int32_t n_heads, n_kv_heads, head_dim;
  int32_t window = 0;
  float softcap = 0;
};

using Kernel = decltype(&attention_prefill);

double run(const Case& c, KvFormat format, const std::vector<TestSlice>& slices,
           Kernel kernel = attention_prefill) {
  CAPTURE(to_string(format));
  CAPTURE(c.n_heads);
  CAPTURE(c.n_kv_heads);
  CAPTURE(c.head_dim);
  CAPTURE(c.window);
  PagedStep step({2, c.n_kv_heads, c.head_dim}, format, slices);
  step.fill(static_cast<uint64_t>(c.head_dim));
  const AttentionRows rows(step.n_tokens(), c.n_heads, c.head_dim, 5);
  const AttentionShape shape{step.storage.geometry(),
                             1,
                             c.n_heads,
                             1 / std::sqrt(static_cast<float>(c.head_dim)),
                             c.window,
                             c.softcap};
  const DeviceMemory<AttentionTile> tiles(attention_tiles(step.slices, shape.heads_of_kv()));
  const auto n_tiles =
      static_cast<int64_t>(attention_tiles(step.slices, shape.heads_of_kv()).size());
  kernel(shape, rows.queries(), rows.outputs(), step.tables, tiles.data(), n_tiles, nullptr);
  return test::check_attention(shape, step, rows, false);
}

}  // namespace

TEST_CASE("cuda prefill: every format, width and group of heads") {
  const Case cases[] = {{1, 1, 24}, {6, 2, 64}, {2, 2, 80}, {4, 1, 128}, {8, 1, 128}, {2, 1, 256}};
  for (const Case& c : cases) {
    for (const KvFormat format : kFormats) run(c, format, {{0, 65}, {70, 1}, {63, 2}, {100, 20}});
  }
}

TEST_CASE("cuda prefill: from nothing, and behind a long text") {
  for (const KvFormat format : kFormats) {
    run({2, 1, 64}, format, {{0, 2}, {0, 64}, {0, 130}});
    run({1, 1, 64}, format, {{935, 65}});
  }
}

TEST_CASE("cuda prefill: windows and a cap on scores") {
  for (const KvFormat format : kFormats) {
    for (const int window : {1, 17, 64, 100}) run({2, 1, 64, window, 0}, format, {{50, 90}});
    run({4, 2, 128, 33, 0}, format, {{150, 30}});
    run({4, 2, 64, 0, 1.5F}, format, {{50, 30}});
  }
}

TEST_CASE("cuda prefill: the order of threads does not matter") {
  for (const uint64_t order : {1U, 2U, 9U}) {
    cuda_host::set_order(order);
    for (const KvFormat format : kFormats) {
      run({3, 1, 64}, format, {{100, 70}});
      run({2, 1, 128}, format, {{0, 70}});
    }
    run({1, 1, 256}, KvFormat::f16, {{20, 50}});
  }
  cuda_host::set_order(0);
}

TEST_CASE("cuda prefill: by the kernel of decode, for heads that have no room elsewhere") {
  for (const KvFormat format : kFormats) {
    run({3, 1, 64, 40, 0}, format, {{100, 1}, {10, 70}}, attention_of_tiles);
  }
  CHECK(prefill_shared_bytes({KvFormat::f16, 1, 1, 320}) == 0);
  run({1, 1, 320}, KvFormat::f16, {{40, 40}});
  run({2, 1, 512}, KvFormat::int8, {{40, 10}});
}

TEST_CASE("cuda prefill: shared memory stays within what every device has") {
  for (const KvFormat format : kFormats) {
    for (int32_t head_dim = 1; head_dim <= 256; ++head_dim) {
      const int bytes = prefill_shared_bytes({format, 1, 1, head_dim});
      CHECK(bytes > 0);
      CHECK(bytes <= 48 << 10);
    }
  }
}

TEST_CASE("cuda prefill: products of bf16 in plain arithmetic are those of the tensor cores") {
  const auto kernel = [](const unsigned* a, const unsigned* b, float* d) {
    const unsigned lane = threadIdx.x;
    const unsigned own_a[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
    const unsigned own_b[2] = {b[lane * 2], b[lane * 2 + 1]};
    float plain[4] = {1, 2, 3, 4}, cores[4] = {1, 2, 3, 4};
    mma_bf16_plain(plain, own_a, own_b);
    mma_bf16(cores, own_a, own_b);
    for (unsigned i = 0; i < 4; ++i) {
      d[lane * 8 + i] = plain[i];
      d[lane * 8 + 4 + i] = cores[i];
    }
  };
  std::vector<unsigned> a(128), b(64);
  unsigned n = 1;  // small whole numbers: sums are exact
  const auto next = [&] { return static_cast<float>(n++ % 7); };
  for (unsigned& x : a) x = pack_bf16(next(), -next());
  for (unsigned& x : b) x = pack_bf16(-next(), next() * 3);
  const DeviceMemory<unsigned> a_memory(a), b_memory(b);
  const DeviceMemory<float> d(256);
  void (*function)(const unsigned*, const unsigned*, float*) = kernel;
  launch("mma_bf16_plain", function, {dim3(1), 32, 0}, nullptr, false, a_memory.data(),
         b_memory.data(), d.data());
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) CHECK(d.data()[lane * 8 + i] == d.data()[lane * 8 + 4 + i]);
  }
}
