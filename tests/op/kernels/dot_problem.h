// A matmul to hold a dot kernel to: x u8, w s8 in the packed layout, and the exact sums from the
// unpacked weights by the plainest loop.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "kernels/dot.h"
#include "quant/packing.h"

namespace qllm::test {

enum class Fill {
  random,   // all of u8, all of s8
  bell,     // all of s8, x about 128 but for one in 16; pairs with |x0 + x1 - 256| of 127 to 129
  largest,  // 255 * 127: the largest sums
  most_negative  // 255 * -128: the smallest; pairs that vpmaddubsw would saturate
};

template <typename T>
struct Aligned {
  explicit Aligned(int64_t n)
      : size(n),
        data(static_cast<T*>(std::aligned_alloc(
                 64, static_cast<size_t>(qllm::round_up(n * static_cast<int64_t>(sizeof(T)), 64)))),
             &std::free) {}
  T& operator[](int64_t i) const { return data.get()[i]; }
  int64_t size;
  std::unique_ptr<T, void (*)(void*)> data;
};

struct DotProblem {
  DotProblem(int64_t m_in, int64_t n_in, int64_t k_in, Fill fill, uint32_t seed = 1)
      : m(m_in),
        n(round_up(n_in, kBlockN)),
        k(round_up(k_in, kBlockK)),
        ldx(k + 64),
        ldacc(n + 64),
        x(m * ldx),
        w(packed_bytes(n, k)),
        expected(static_cast<size_t>(m * n)) {
    std::mt19937 random(seed);
    std::vector<int8_t> plain(static_cast<size_t>(n_in * k_in));
    for (int8_t& v : plain) {
      v = is_random(fill) ? static_cast<int8_t>(random())
                          : static_cast<int8_t>(fill == Fill::largest ? 127 : -128);
    }
    for (int64_t i = 0; i < x.size; ++i) {
      x[i] = is_random(fill) ? static_cast<uint8_t>(random()) : uint8_t{255};
      if (fill == Fill::bell && random() % 16 != 0)
        x[i] = i % 4 < 2 ? 64 + x[i] / 2 : x[i] / 128 * 127 + 64;
    }
    for (int64_t i = 0; i < w.size; ++i) w[i] = 0;
    for (int64_t r = 0; r < n_in; ++r) {
      for (int64_t c = 0; c < k_in; ++c)
        w[packed_offset(r, c, k)] = plain[static_cast<size_t>(r * k_in + c)];
    }
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t r = 0; r < n_in; ++r) {
        int64_t sum = 0;
        for (int64_t c = 0; c < k_in; ++c)
          sum += x[i * ldx + c] * plain[static_cast<size_t>(r * k_in + c)];
        expected[static_cast<size_t>(i * n + r)] = sum;
      }
    }
  }

  /// Runs a kernel into fresh memory; the number of sums that differ, plus the words outside [m, n]
  /// that it touched.
  int64_t mismatches(void (*run)(const cpu::DotArgs&) noexcept) const {
    constexpr int32_t kUntouched = 0x5a5a5a5a;
    Aligned<int32_t> acc(m * ldacc);
    for (int64_t i = 0; i < acc.size; ++i) acc[i] = kUntouched;
    run({x.data.get(), w.data.get(), acc.data.get(), m, n, k, ldx, ldacc});
    int64_t wrong = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t r = 0; r < ldacc; ++r) {
        const int64_t want = r < n ? expected[static_cast<size_t>(i * n + r)] : kUntouched;
        wrong += acc[i * ldacc + r] != want ? 1 : 0;
      }
    }
    return wrong;
  }

  static bool is_random(Fill fill) { return fill == Fill::random || fill == Fill::bell; }

  int64_t m, n, k, ldx, ldacc;
  Aligned<uint8_t> x;
  Aligned<int8_t> w;
  std::vector<int64_t> expected;  // [m, n], exact; 0 in the padding of N
};

}  // namespace qllm::test
