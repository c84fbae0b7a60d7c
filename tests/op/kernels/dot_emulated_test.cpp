// The dot kernels of the tiers above the base level, emulated by SIMDe (tests/support/emulated):
// checked on every machine, whatever it has.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "op/kernels/dot_problem.h"

using namespace qllm;        // NOLINT
using namespace qllm::test;  // NOLINT

#ifdef QLLM_EMULATED_KERNELS

#define QLLM_DOT_KERNEL(tier, variant)                              \
  namespace qllm::cpu::tier##_emulated {                            \
    void dot_u8s8s32_n64k4_##variant(const DotArgs& args) noexcept; \
  }
#include "kernels/dot_kernels.inc"
#undef QLLM_DOT_KERNEL

namespace qllm::test {
bool emulated_tiles_in_use();
}

// The scalar kernel needs no emulation; its line in the table is this.
void cpu::scalar_emulated::dot_u8s8s32_n64k4_plain(const DotArgs& args) noexcept {
  select_dot_kernel(Isa::scalar, args.m).run(args);
}

namespace {

struct Emulated {
  const char* name;
  void (*run)(const cpu::DotArgs&) noexcept;
};

constexpr Emulated kEmulated[] = {
#define QLLM_DOT_KERNEL(tier, variant)               \
  {"emulated dot_u8s8s32_n64k4_" #variant "_" #tier, \
   &cpu::tier##_emulated::dot_u8s8s32_n64k4_##variant},
#include "kernels/dot_kernels.inc"
#undef QLLM_DOT_KERNEL
};

void check_all(const DotProblem& problem) {
  for (const Emulated& kernel : kEmulated) {
    const std::string name(kernel.name);
    CAPTURE(name);
    CAPTURE(problem.m);
    CAPTURE(problem.n);
    CAPTURE(problem.k);
    CHECK(problem.mismatches(kernel.run) == 0);
  }
}

}  // namespace

TEST_CASE("emulated dot kernels: equal the exact sums at ragged M, N and K") {
  for (const Emulated& kernel : kEmulated) {
    const std::string name(kernel.name);
    MESSAGE("runs " << name);
  }
  const int64_t shapes[][2] = {{64, 64}, {65, 63}, {100, 300}};
  for (const auto& [n, k] : shapes) {
    for (int64_t m = 1; m <= 70; m += m < 20 ? 1 : 5) {
      check_all(DotProblem(m, n, k, Fill::random, static_cast<uint32_t>(m)));
    }
  }
}

TEST_CASE("emulated dot kernels: exact at the ends of the value range and K = 8192") {
  for (const Fill fill : {Fill::largest, Fill::most_negative, Fill::random}) {
    for (const int64_t m : {1, 2, 5, 13}) check_all(DotProblem(m, 64, 8192, fill));
  }
}

TEST_CASE("emulated dot kernels: exact at the M of prefill, over several panels of K and N") {
  for (const int64_t m : {33, 48, 128, 513}) check_all(DotProblem(m, 130, 900, Fill::random));
  for (const int64_t m : {1, 7, 33}) check_all(DotProblem(m, 130, 900, Fill::bell));
  check_all(DotProblem(16, 700, 700, Fill::random));  // more columns than are read by turns
}

TEST_CASE("emulated dot kernels: read no row of x outside, and leave no tile configured") {
  // The last row of x ends where memory ends: a page behind it that may not be touched.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const int64_t m : {1, 7, 16, 17, 31, 32, 33, 50, 63}) {
    const DotProblem problem(m, 64, 512, Fill::random);
    const auto bytes = static_cast<size_t>(m * problem.k);
    const size_t pages = (bytes + page - 1) / page * page;
    auto* memory = static_cast<uint8_t*>(
        mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(static_cast<void*>(memory) != MAP_FAILED);
    REQUIRE(mprotect(memory + pages, page, PROT_NONE) == 0);
    uint8_t* x = memory + pages - bytes;
    for (int64_t i = 0; i < m; ++i) {
      std::copy_n(problem.x.data.get() + i * problem.ldx, problem.k, x + i * problem.k);
    }
    for (const Emulated& kernel : kEmulated) {
      Aligned<int32_t> acc(m * problem.n);
      kernel.run(
          {x, problem.w.data.get(), acc.data.get(), m, problem.n, problem.k, problem.k, problem.n});
      int64_t wrong = 0;
      for (int64_t i = 0; i < acc.size; ++i) {
        wrong += acc[i] != problem.expected[static_cast<size_t>(i)] ? 1 : 0;
      }
      const std::string name(kernel.name);
      CAPTURE(name);
      CAPTURE(m);
      CHECK(wrong == 0);
      CHECK_FALSE(emulated_tiles_in_use());
    }
    munmap(memory, pages + page);
  }
}

#else

TEST_CASE("emulated dot kernels: skipped without SIMDe") {
  MESSAGE(
      "[skipped] emulated kernels of all tiers: SIMDe was not found, or does not compile here, "
      "when this was built");
}

#endif
