// Every kernel on weights in groups, native and emulated, against the contract in double.
#include <doctest/doctest.h>

#include <limits>

#include "op/kernels/group_dot_problem.h"

using namespace qllm;        // NOLINT
using namespace qllm::test;  // NOLINT

#ifdef QLLM_EMULATED_KERNELS
#define QLLM_GROUP_DOT_KERNEL(tier, variant, m_min, m_max)              \
  namespace qllm::cpu::tier##_emulated {                                \
    void group_dot_s8_n64_##variant(const GroupDotArgs& args) noexcept; \
  }
#include "kernels/group_dot_kernels.inc"
#undef QLLM_GROUP_DOT_KERNEL

// The scalar kernel needs no emulation; its line in the table is this.
void cpu::scalar_emulated::group_dot_s8_n64_plain(const GroupDotArgs& args) noexcept {
  select_group_dot_kernel(Isa::scalar, args.m).run(args);
}
#endif

namespace {

struct Candidate {
  const char* name;
  void (*run)(const cpu::GroupDotArgs&) noexcept;
};

std::vector<Candidate> native() {
  std::vector<Candidate> out;
  for (const cpu::GroupDotKernel& kernel : cpu::group_dot_kernels()) {
    if (cpu::isa_available(kernel.isa)) out.push_back({kernel.name, kernel.run});
  }
  return out;
}

std::vector<Candidate> emulated() {
#ifdef QLLM_EMULATED_KERNELS
  return {
#define QLLM_GROUP_DOT_KERNEL(tier, variant, m_min, m_max) \
  {"emulated group_dot_s8_n64_" #variant "_" #tier,        \
   &cpu::tier##_emulated::group_dot_s8_n64_##variant},
#include "kernels/group_dot_kernels.inc"
#undef QLLM_GROUP_DOT_KERNEL
  };
#else
  MESSAGE("[skipped] emulated group dot kernels: SIMDe was not found when this was built");
  return {};
#endif
}

void check_all(const std::vector<Candidate>& candidates, const GroupDotProblem& problem) {
  for (const Candidate& candidate : candidates) {
    const std::string name(candidate.name);
    const std::string format = describe(problem.format);
    CAPTURE(name);
    CAPTURE(format);
    CAPTURE(problem.m);
    CAPTURE(problem.n);
    CAPTURE(problem.k);
    CHECK(problem.mismatches(candidate.run) == 0);
  }
}

void check_ragged(const std::vector<Candidate>& candidates) {
  for (const GroupFormat& format : group_formats()) {
    const int64_t shapes[][2] = {{1, 1}, {5, 130}, {3, 576}};
    for (const auto& [columns, k] : shapes) {
      for (int64_t m = 1; m <= 70; m += m < 14 ? 1 : 14) {
        check_all(candidates, {format, m, columns, k, Fill::random, static_cast<uint32_t>(m)});
      }
    }
  }
}

void check_ends(const std::vector<Candidate>& candidates) {
  for (const GroupFormat& format : group_formats()) {
    for (const Fill fill : {Fill::largest, Fill::most_negative}) {
      for (const int64_t m : {1, 2, 5, 13}) check_all(candidates, {format, m, 1, 2048, fill});
    }
  }
}

}  // namespace

TEST_CASE("group dot kernels: those whose tier the machine lacks are skipped") {
  for (const cpu::GroupDotKernel& kernel : cpu::group_dot_kernels()) {
    const std::string name(kernel.name);
    if (!cpu::isa_available(kernel.isa))
      MESSAGE("[skipped] " << name << ": the machine lacks its tier");
  }
}

TEST_CASE("group dot kernels: within the bound at ragged M and K, all formats") {
  check_ragged(native());
}

TEST_CASE("group dot kernels: within the bound at the ends of the value range") {
  check_ends(native());
}

TEST_CASE("emulated group dot kernels: within the bound at ragged M and K, all formats") {
  check_ragged(emulated());
}

TEST_CASE("emulated group dot kernels: within the bound at the ends of the value range") {
  check_ends(emulated());
}

TEST_CASE("group dot kernels: the check notices a wrong kernel") {
  const GroupDotProblem problem({4, 32, GroupScales::f16_min}, 3, 1, 64);
  CHECK(problem.mismatches([](const cpu::GroupDotArgs& args) noexcept {
    cpu::select_group_dot_kernel(cpu::Isa::scalar, args.m).run(args);
    args.y[args.ldy + 5] *= 1.0F + 0x1p-20F;
    args.y[3 * args.ldy - 1] = 0.0F;
  }) == 2);
}

TEST_CASE("select_group_dot_kernel: each tier has one kernel for every M, within its range") {
  for (const cpu::Isa isa :
       {cpu::Isa::scalar, cpu::Isa::avx2, cpu::Isa::avxvnni, cpu::Isa::avx512vnni}) {
    for (int64_t m = 1; m <= 100; ++m) {
      const cpu::GroupDotKernel& kernel = cpu::select_group_dot_kernel(isa, m);
      REQUIRE(kernel.isa == isa);
      REQUIRE(m >= kernel.m_min);
      REQUIRE(m <= kernel.m_max);
    }
    CHECK(cpu::select_group_dot_kernel(isa, std::numeric_limits<int64_t>::max()).isa == isa);
  }
}
