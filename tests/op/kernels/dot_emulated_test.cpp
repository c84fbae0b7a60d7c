// The dot kernels of the tiers above the base level, emulated by SIMDe (tests/support/emulated):
// checked on every machine, whatever it has.
#include <doctest/doctest.h>

#include <string>

#include "op/kernels/dot_problem.h"

using namespace qllm;        // NOLINT
using namespace qllm::test;  // NOLINT

#ifdef QLLM_EMULATED_KERNELS

#define QLLM_DOT_KERNEL(tier, variant, m_min, m_max)                \
  namespace qllm::cpu::tier##_emulated {                            \
    void dot_u8s8s32_n64k4_##variant(const DotArgs& args) noexcept; \
  }
#include "kernels/dot_kernels.inc"
#undef QLLM_DOT_KERNEL

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
#define QLLM_DOT_KERNEL(tier, variant, m_min, m_max) \
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

#else

TEST_CASE("emulated dot kernels: skipped without SIMDe") {
  MESSAGE(
      "[skipped] emulated kernels of all tiers: SIMDe was not found, or does not compile here, "
      "when this was built");
}

#endif
