// The loops that measure ceilings do what they are counted for: a ceiling from a loop that leaves
// work out would be none.
#include "kernels/ceiling.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

namespace {

using namespace qllm::cpu;

bool skip(Isa isa) {
  if (isa_available(isa)) return false;
  const std::string name(isa_name(isa));
  MESSAGE("[skipped] ceiling loops of " << name << ": this machine lacks it");
  return true;
}

std::vector<uint32_t> words(int64_t bytes) {
  std::vector<uint32_t> data(static_cast<size_t>(bytes / 4));
  uint32_t state = 1;
  // 24 bits: the sums of 8-byte loads then carry nothing from the low half into the high one.
  for (uint32_t& word : data) word = (state = state * 1664525U + 1013904223U) >> 8U & 0xFFFFU;
  return data;
}

uint32_t plain_sum(const std::vector<uint32_t>& data) {
  uint32_t sum = 0;
  for (const uint32_t word : data) sum += word;
  return sum;
}

TEST_CASE("ceiling read: every word once, in any number of streams, with any prefetch") {
  for (const ReadKernel& kernel : read_kernels()) {
    if (skip(kernel.isa)) continue;
    for (const int64_t runs : {1, 3, 4, 8, 13, 64}) {
      const std::vector<uint32_t> data = words(runs * 256);
      for (const int streams : {1, 2, 4, 8}) {
        for (const Prefetch hint : {Prefetch::none, Prefetch::t0, Prefetch::nta}) {
          CAPTURE(kernel.width);
          CAPTURE(streams);
          CHECK(kernel.run({data.data(), runs * 256, streams, hint, 1024}) == plain_sum(data));
        }
      }
    }
  }
}

struct alignas(64) Line {
  float v[16];
};

TEST_CASE("ceiling copy and triad: the arrays hold what they should, and no more") {
  constexpr size_t kLines = 5;
  for (const MoveKernel& kernel : move_kernels()) {
    if (skip(kernel.isa)) continue;
    for (const bool non_temporal : {false, true}) {
      std::vector<Line> a(kLines + 1), b(kLines), c(kLines);
      for (size_t i = 0; i < kLines; ++i) {
        for (size_t j = 0; j < 16; ++j) {
          b[i].v[j] = static_cast<float>(16 * i + j);
          c[i].v[j] = static_cast<float>(j) - 4.0F;
        }
      }
      std::memset(&a[kLines], 0, sizeof(Line));
      const MoveArgs args{a[0].v, b[0].v, c[0].v, kLines * sizeof(Line), non_temporal};
      kernel.copy(args);
      CHECK(std::memcmp(a.data(), b.data(), kLines * sizeof(Line)) == 0);
      kernel.triad(args);
      for (size_t i = 0; i < kLines; ++i) {
        for (size_t j = 0; j < 16; ++j) CHECK(a[i].v[j] == b[i].v[j] + 3 * c[i].v[j]);
      }
      for (const float v : a[kLines].v) CHECK(v == 0.0F);
    }
  }
}

/// What `rounds` rounds must add up to if the table's operations are honest.
uint32_t peak_sum(const PeakKernel& kernel, int64_t rounds) {
  const int64_t multiply_adds = rounds * kernel.ops / 2;
  if (kernel.type == PeakType::f32) return static_cast<uint32_t>(multiply_adds);
  int64_t four = 0;
  for (int i = 0; i < 4; ++i) four += int64_t{kPeakX[i]} * kPeakW[i];
  return static_cast<uint32_t>(multiply_adds / 4 * four);
}

TEST_CASE("ceiling peak: the operations that are counted are made") {
  for (const PeakKernel& kernel : peak_kernels()) {
    if (skip(kernel.isa)) continue;
    for (const int64_t rounds : {0, 1, 2, 1000}) {
      CAPTURE(rounds);
      CHECK_MESSAGE(kernel.run(rounds) == peak_sum(kernel, rounds), std::string(kernel.name));
    }
  }
}

#ifdef QLLM_EMULATED_KERNELS
}  // namespace

namespace qllm::cpu::avxvnni_emulated {
uint32_t peak_int8(int64_t rounds) noexcept;
}
namespace qllm::cpu::avx512vnni_emulated {
uint32_t peak_int8(int64_t rounds) noexcept;
}
namespace qllm::cpu::amx_emulated {
uint32_t peak_int8(int64_t rounds) noexcept;
}

namespace {

TEST_CASE("ceiling peak: the loops of VNNI and AMX, emulated, make what is counted") {
  for (const PeakKernel& kernel : peak_kernels()) {
    if (kernel.type != PeakType::int8) continue;
    if (kernel.isa == Isa::avxvnni) {
      CHECK(avxvnni_emulated::peak_int8(3) == peak_sum(kernel, 3));
    } else if (kernel.isa == Isa::avx512vnni) {
      CHECK(avx512vnni_emulated::peak_int8(3) == peak_sum(kernel, 3));
    } else if (kernel.isa == Isa::amx) {
      CHECK(amx_emulated::peak_int8(3) == peak_sum(kernel, 3));
    }
  }
}
#endif

}  // namespace
