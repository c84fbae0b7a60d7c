// Attention of one token a sequence, emulated.
#include "kernels/attention_decode.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "cuda_host/runtime.h"
#include "emulated_cuda/attention_oracle.h"

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

AttentionShape shape_of(const Case& c, const PagedStep& step) {
  return {step.storage.geometry(),
          1,
          c.n_heads,
          1 / std::sqrt(static_cast<float>(c.head_dim)),
          c.window,
          c.softcap};
}

double run(const Case& c, KvFormat format, const std::vector<TestSlice>& slices, int splits) {
  CAPTURE(to_string(format));
  CAPTURE(c.n_heads);
  CAPTURE(c.n_kv_heads);
  CAPTURE(c.head_dim);
  CAPTURE(splits);
  PagedStep step({2, c.n_kv_heads, c.head_dim}, format, slices);
  step.fill(static_cast<uint64_t>(c.head_dim));
  const AttentionRows rows(step.n_tokens(), c.n_heads, c.head_dim, 5);
  const AttentionShape shape = shape_of(c, step);
  const auto n_slices = static_cast<int64_t>(slices.size());
  const int64_t bytes = decode_workspace_bytes(shape, n_slices, splits);
  DeviceMemory<float> workspace(bytes / 4 + 1);
  workspace.data()[bytes / 4] = 7;
  attention_decode(shape, rows.queries(), rows.outputs(), step.tables, n_slices, splits,
                   workspace.data(), nullptr);
  CHECK(workspace.data()[bytes / 4] == 7);
  return test::check_attention(shape, step, rows, true);
}

const std::vector<TestSlice> kLengths = {{0, 1}, {62, 1}, {63, 1}, {5, 2}, {64, 1}, {299, 1}};

}  // namespace

TEST_CASE("cuda decode: every format, width and group of heads, in one part and in several") {
  const Case cases[] = {{1, 1, 24}, {6, 2, 64}, {4, 4, 80}, {8, 2, 128}, {8, 1, 256}, {20, 1, 64}};
  for (const Case& c : cases) {
    for (const KvFormat format : kFormats) {
      for (const int splits : {1, 3}) run(c, format, kLengths, splits);
    }
  }
}

TEST_CASE("cuda decode: long sequences, and more parts than there are blocks") {
  for (const KvFormat format : kFormats) {
    for (const int splits : {1, 7, 40}) run({3, 1, 64}, format, {{999, 1}, {130, 1}}, splits);
  }
  run({2, 1, 512}, KvFormat::f16, {{70, 1}}, 1);
  run({2, 1, 320}, KvFormat::int8, {{70, 1}}, 2);
}

TEST_CASE("cuda decode: windows and a cap on scores") {
  for (const KvFormat format : kFormats) {
    for (const int window : {1, 17, 64, 100}) {
      for (const int splits : {1, 2}) run({4, 2, 64, window, 0}, format, kLengths, splits);
    }
    run({4, 2, 64, 0, 1.5F}, format, kLengths, 2);
    run({2, 2, 128, 33, 0.5F}, format, kLengths, 1);
  }
}

TEST_CASE("cuda decode: the order of threads does not matter") {
  for (const uint64_t order : {1U, 2U, 9U}) {
    cuda_host::set_order(order);
    for (const KvFormat format : kFormats) run({6, 2, 64}, format, {{299, 1}, {3, 1}}, 2);
    run({2, 1, 256}, KvFormat::f16, {{130, 1}}, 1);
  }
  cuda_host::set_order(0);
}

TEST_CASE("cuda decode: queries and weights have two terms") {
  // One product a score and large scores: one term of f16 would be off by 2^-12 of 40, 1 %, in the
  // weights, one of bf16 by 8 times as much.
  for (const KvFormat format : kFormats) {
    PagedStep step({1, 1, 16}, format, {{63, 1}});
    step.fill(1);
    const AttentionRows rows(1, 1, 16, 6);
    const AttentionShape shape{step.storage.geometry(), 0, 1, 1.0F, 0, 0};
    std::vector<double> k, v;
    for (int64_t j = 0; j < 64; ++j) {
      k.push_back(step.element(0, 0, 0, j, 3, false));
      v.push_back(step.element(0, 0, 0, j, 5, true));
    }
    const double most =
        std::max(*std::max_element(k.begin(), k.end()), -*std::min_element(k.begin(), k.end()));
    for (int i = 0; i < 16; ++i) rows.q.data()[i] = i == 3 ? static_cast<float>(40.1 / most) : 0;
    attention_decode(shape, rows.queries(), rows.outputs(), step.tables, 1, 1, nullptr, nullptr);
    double sum = 0, x = 0, size = 0;
    const double q = rows.q.data()[3];
    for (size_t j = 0; j < 64; ++j) {
      const double p = std::exp(q * k[j] - 40);
      sum += p;
      x += p * v[j];
      size += p * std::abs(v[j]);
    }
    const double u = format == KvFormat::bf16 ? 0x1p-16 : 0x1p-22;
    // Scores of 40: u and 4 roundings; twice over, for the weight and for the sum; the weight's u.
    const double bound = 2 * 40.1 * (u + 4 * 0x1p-24) + u + 70 * 0x1p-23;
    CHECK(std::abs(rows.out.data()[5] - x / sum) <= bound * size / sum);
  }
}

TEST_CASE("cuda decode: numbers of any size") {
  // Beyond f16: 1e6 and 1e-9 in queries, values whose scales differ by 1e6.
  for (const KvFormat format : kFormats) {
    for (const float factor : {1e6F, 1e-9F, 0.0F}) {
      PagedStep step({1, 1, 64}, format, {{80, 1}});
      step.fill(2);
      const AttentionRows rows(1, 2, 64, 6);
      for (int i = 0; i < 128; ++i) rows.q.data()[i] *= factor;
      const float scale = factor > 0 ? 0.1F / factor : 1.0F;
      const AttentionShape shape{step.storage.geometry(), 0, 2, scale, 0, 0};
      attention_decode(shape, rows.queries(), rows.outputs(), step.tables, 1, 1, nullptr, nullptr);
      test::check_attention(shape, step, rows, true);
    }
  }
}

TEST_CASE("cuda decode: keys of tokens to come may be anything") {
  PagedStep step({1, 1, 32}, KvFormat::int8, {{20, 1}});
  step.fill(3);
  std::byte* head = step.head(0, 0, 0, 0);
  const KvGeometry& g = step.storage.geometry();
  for (int t = 21; t < 64; ++t) {
    const float nan = NAN;
    std::memcpy(head + g.scale_offset(t, false), &nan, sizeof nan);
  }
  const AttentionRows rows(1, 1, 32, 6);
  const AttentionShape shape{g, 0, 1, 0.2F, 0, 0};
  attention_decode(shape, rows.queries(), rows.outputs(), step.tables, 1, 1, nullptr, nullptr);
  test::check_attention(shape, step, rows, true);
}
