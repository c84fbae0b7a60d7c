// Every registered int8 kernel against exact sums, bit for bit.
#include <doctest/doctest.h>

#include <string>

#include "op/kernels/dot_problem.h"

using namespace qllm;        // NOLINT
using namespace qllm::test;  // NOLINT

namespace {

template <typename Check>
void for_each_available(const Check& check) {
  for (const cpu::DotKernel& kernel : cpu::dot_kernels()) {
    if (cpu::isa_available(kernel.isa)) check(kernel);
  }
}

}  // namespace

TEST_CASE("dot kernels: those whose tier the machine lacks are skipped") {
  for (const cpu::DotKernel& kernel : cpu::dot_kernels()) {
    const std::string name(kernel.name);
    if (!cpu::isa_available(kernel.isa))
      MESSAGE("[skipped] " << name << ": the machine lacks its tier");
  }
}

TEST_CASE("dot kernels: equal the exact sums at ragged M, N and K") {
  const int64_t shapes[][2] = {{64, 64}, {1, 1}, {65, 63}, {100, 200}, {128, 577}};
  for (const auto& shape : shapes) {
    const int64_t n = shape[0];
    const int64_t k = shape[1];
    for (int64_t m = 1; m <= 70; m += m < 20 ? 1 : 5) {
      const DotProblem problem(m, n, k, Fill::random, static_cast<uint32_t>(m));
      for_each_available([&](const cpu::DotKernel& kernel) {
        const std::string name(kernel.name);
        CAPTURE(name);
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        CHECK(problem.mismatches(kernel.run) == 0);
      });
    }
  }
}

TEST_CASE("dot kernels: equal the exact sums where most activations are small") {
  for (const int64_t k : {64, 192, 256, 640}) {
    for (const int64_t m : {1, 2, 7, 16, 33, 64}) {
      const DotProblem problem(m, 130, k, Fill::bell, static_cast<uint32_t>(m + k));
      for_each_available([&](const cpu::DotKernel& kernel) {
        const std::string name(kernel.name);
        CAPTURE(name);
        CAPTURE(m);
        CAPTURE(k);
        CHECK(problem.mismatches(kernel.run) == 0);
      });
    }
  }
}

TEST_CASE("dot kernels: exact at the ends of the value range and K = 8192") {
  for (const Fill fill : {Fill::largest, Fill::most_negative, Fill::random}) {
    for (const int64_t m : {1, 2, 5, 13}) {
      const DotProblem problem(m, 64, 8192, fill);
      for_each_available([&](const cpu::DotKernel& kernel) {
        const std::string name(kernel.name);
        CAPTURE(name);
        CAPTURE(m);
        CHECK(problem.mismatches(kernel.run) == 0);
      });
    }
  }
}

TEST_CASE("dot kernels: the check notices a wrong kernel") {
  const DotProblem problem(3, 64, 64, Fill::random);
  CHECK(problem.mismatches([](const cpu::DotArgs& args) noexcept {
    cpu::select_dot_kernel(cpu::Isa::scalar, args.m).run(args);
    args.acc[args.ldacc + 5] += 1;
  }) == 1);
}

TEST_CASE("best_isa: is available, and none better is") {
  CHECK(cpu::isa_available(cpu::best_isa()));
  CHECK(cpu::isa_available(cpu::Isa::scalar));
  for (int i = static_cast<int>(cpu::best_isa()) + 1; i <= static_cast<int>(cpu::Isa::amx); ++i) {
    CHECK_FALSE(cpu::isa_available(static_cast<cpu::Isa>(i)));
  }
}
