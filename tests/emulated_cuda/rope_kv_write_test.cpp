// Rotation and the write of keys and values, emulated, against the reference's own op.
#include "kernels/rope_kv_write.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "cuda_host/runtime.h"
#include "emulated_cuda/paged_step.h"
#include "quant/int8.h"

using namespace qllm;        // NOLINT
using namespace qllm::cuda;  // NOLINT

namespace {

struct Case {
  KvFormat format;
  int32_t n_heads, n_kv_heads, head_dim, rotary;
  RopeStyle style;
};

std::vector<float> frequencies(const Case& c) {
  std::vector<float> f;
  for (int i = 0; i < c.rotary; i += 2) {
    f.push_back(std::pow(10000.0F, -static_cast<float>(i) / static_cast<float>(c.rotary)));
  }
  return f;
}

/// As the reference's rotate_head.
std::vector<float> rotated(const Case& c, const float* x, int32_t position,
                           const std::vector<float>& inv_freq) {
  std::vector<float> y(x, x + c.head_dim);
  const int half = c.rotary / 2;
  for (int i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * inv_freq[static_cast<size_t>(i)];
    const auto a = static_cast<size_t>(c.style == RopeStyle::adjacent ? 2 * i : i);
    const auto b = static_cast<size_t>(c.style == RopeStyle::adjacent ? 2 * i + 1 : i + half);
    y[a] = x[a] * std::cos(angle) - x[b] * std::sin(angle);
    y[b] = x[a] * std::sin(angle) + x[b] * std::cos(angle);
  }
  return y;
}

std::vector<float> turned(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < 64; ++j) {
      const double v = x[i / 64 * 64 + j];
      sum += std::popcount(i % 64 & j) % 2 != 0 ? -v : v;
    }
    y[i] = static_cast<float>(sum / 8);
  }
  return y;
}

/// What the cache must hold of x: within half a step of the format, and the sums' rounding.
void check_stored(const test::PagedStep& step, size_t slice, const Case& c, int64_t layer,
                  int64_t head, int64_t token, const std::vector<float>& x, bool value) {
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::abs(v));
  for (size_t d = 0; d < x.size(); ++d) {
    const float found = step.element(slice, layer, head, token, static_cast<int64_t>(d), value);
    const float relative = c.format == KvFormat::f16 ? 0x1p-11F : 0x1p-8F;
    const float half_step =
        c.format == KvFormat::int8 ? largest / 254 : relative * std::abs(x[d]) + 0x1p-25F;
    // Rotation: two products and a sum; the turn: six sums. 8 roundings of the largest at most.
    REQUIRE(std::abs(found - x[d]) <= half_step * 1.0001F + 8 * 0x1p-23F * largest);
  }
}

void run(const Case& c) {
  CAPTURE(to_string(c.format));
  CAPTURE(c.head_dim);
  test::PagedStep step({2, c.n_kv_heads, c.head_dim}, c.format, {{0, 3}, {62, 5}, {1000, 1}});
  const int64_t width = int64_t{c.n_heads + 2 * c.n_kv_heads} * c.head_dim;
  const int64_t ld = (width + 63) / 64 * 64, q_ld = (c.n_heads * c.head_dim + 63) / 64 * 64;
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(step.n_tokens() * ld));
  for (float& v : x) v = normal(random);
  const std::vector<float> inv_freq = frequencies(c);
  DeviceMemory<float> qkv(x), q(step.n_tokens() * q_ld), f(inv_freq);
  RopeShape shape{step.storage.geometry(), 1, c.n_heads, c.style, c.rotary / 2, f.data()};
  rope_kv_write(shape, {qkv.data(), ld, width}, {q.data(), q_ld, c.n_heads * c.head_dim},
                step.tables, step.n_tokens(), nullptr);
  const bool turns = c.format == KvFormat::int8 && c.head_dim % 64 == 0;
  for (int64_t t = 0; t < step.n_tokens(); ++t) {
    const auto slice = static_cast<size_t>(step.slice_of[static_cast<size_t>(t)]);
    const int32_t position = step.position[static_cast<size_t>(t)];
    for (int64_t h = 0; h < c.n_heads + 2 * c.n_kv_heads; ++h) {
      const float* own = x.data() + t * ld + h * c.head_dim;
      std::vector<float> want = rotated(c, own, position, inv_freq);
      if (turns) want = turned(want);
      const int64_t kv_head = (h - c.n_heads) % c.n_kv_heads;
      if (h >= c.n_heads + c.n_kv_heads) {
        check_stored(step, slice, c, 1, kv_head, position, {own, own + c.head_dim}, true);
      } else if (h >= c.n_heads) {
        check_stored(step, slice, c, 1, kv_head, position, want, false);
      } else {
        for (int64_t d = 0; d < c.head_dim; ++d) {
          const float found = q.data()[t * q_ld + h * c.head_dim + d];
          REQUIRE(std::abs(found - want[static_cast<size_t>(d)]) <= 4e-6F);
        }
      }
    }
  }
  // Nothing else was written: the other layer, and tokens behind the last.
  for (int64_t d = 0; d < c.head_dim; ++d) {
    CHECK(step.element(0, 0, 0, 0, d, false) == 0);
    CHECK(step.element(0, 1, 0, 3, d, true) == 0);
    CHECK(step.element(1, 1, 0, 61, d, true) == 0);
  }
}

}  // namespace

TEST_CASE("cuda rope: queries, keys and values, in both styles and all formats") {
  for (const uint64_t order : {0U, 1U, 5U}) {
    cuda_host::set_order(order);
    for (const KvFormat format : {KvFormat::bf16, KvFormat::int8, KvFormat::f16}) {
      run({format, 3, 1, 64, 64, RopeStyle::adjacent});
      run({format, 4, 2, 128, 64, RopeStyle::half});
      run({format, 2, 2, 80, 32, RopeStyle::half});
      run({format, 1, 1, 24, 24, RopeStyle::adjacent});
    }
  }
  cuda_host::set_order(0);
}

TEST_CASE("cuda rope: int8 has the codes and scales of quantize_row_s8") {
  test::PagedStep step({1, 1, 24}, KvFormat::int8, {{0, 1}});
  std::vector<float> x(128);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i * i));
  x[50] = NAN;
  x[51] = INFINITY;
  DeviceMemory<float> qkv(x), q(64);
  RopeShape shape{step.storage.geometry(), 0, 1, RopeStyle::half, 0, nullptr};
  rope_kv_write(shape, {qkv.data(), 128, 72}, {q.data(), 64, 24}, step.tables, 1, nullptr);
  for (const bool value : {false, true}) {
    std::vector<int8_t> codes(24);
    const float scale = quantize_row_s8(x.data() + (value ? 48 : 24), 24, codes.data());
    CHECK(step.scale(step.head(0, 0, 0, 0), 0, value) == scale);
    for (int64_t d = 0; d < 24; ++d) {
      CHECK(step.element(0, 0, 0, 0, d, value) ==
            static_cast<float>(codes[static_cast<size_t>(d)]) * scale);
    }
  }
}

TEST_CASE("cuda rope: what is beyond a format is written finite") {
  for (const KvFormat format : {KvFormat::bf16, KvFormat::f16}) {
    test::PagedStep step({1, 1, 16}, format, {{0, 1}});
    std::vector<float> x(64, 1.0F);
    for (const size_t first : {size_t{16}, size_t{32}}) {
      x[first] = INFINITY;
      x[first + 1] = -INFINITY;
      x[first + 2] = NAN;
      x[first + 3] = 3.4e38F;
    }
    DeviceMemory<float> qkv(x), q(64);
    RopeShape shape{step.storage.geometry(), 0, 1, RopeStyle::half, 0, nullptr};
    rope_kv_write(shape, {qkv.data(), 64, 48}, {q.data(), 64, 16}, step.tables, 1, nullptr);
    for (const bool value : {false, true}) {
      const auto at = [&](int64_t d) { return step.element(0, 0, 0, 0, d, value); };
      CHECK(std::isfinite(at(0)));
      CHECK(at(0) >= 65504.0F);
      CHECK(at(1) == -at(0));
      CHECK(at(2) == 0.0F);
      CHECK(std::isfinite(at(3)));
      CHECK(at(4) == 1.0F);
    }
  }
}

TEST_CASE("cuda rope: heads are shared out so that few tokens fill the device") {
  for (const int heads : {1, 3, 5, 48, 96}) {
    CHECK(rope_heads_of_block(1, heads) == 4);
    CHECK(rope_heads_of_block(100000, heads) >= heads);
  }
}
