// oneDNN over our packed weights: the same sums, bit for bit, whatever implementation it picks.
#include "onednn/onednn_linear.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <array>
#include <vector>

#include "op/kernels/dot_problem.h"
#include "qllm/error.hpp"

using namespace qllm;        // NOLINT
using namespace qllm::test;  // NOLINT

namespace {

int64_t mismatches(cpu::OnednnLinear& linear, const DotProblem& p, int64_t m) {
  const int64_t rows = linear.rows(m);
  REQUIRE(rows >= m);
  Aligned<int32_t> acc(rows * p.ldacc);
  REQUIRE(
      linear.run({p.x.data.get(), p.w.data.get(), acc.data.get(), m, p.n, p.k, p.ldx, p.ldacc}));
  int64_t wrong = 0;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t r = 0; r < p.n; ++r) {
      wrong += acc[i * p.ldacc + r] != p.expected[static_cast<size_t>(i * p.n + r)] ? 1 : 0;
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("onednn: equals the exact sums over the packed layout at ragged M, N and K") {
  const std::array<int64_t, 6> counts{1, 3, 16, 33, 64, 70};
  for (const auto& shape : {std::array<int64_t, 2>{64, 64}, {100, 70}, {129, 200}}) {
    const int64_t n = shape[0];
    const int64_t k = shape[1];
    for (const Fill fill : {Fill::random, Fill::most_negative, Fill::largest}) {
      const DotProblem problem(70, n, k, fill);
      cpu::OnednnLinear linear({problem.n, problem.k, problem.ldx, problem.ldacc}, counts);
      if (fill == Fill::random && n == 64) MESSAGE("oneDNN runs " << linear.implementation(64));
      for (const int64_t m : {1, 2, 3, 5, 16, 17, 50, 64, 70}) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        CHECK(mismatches(linear, problem, m) == 0);
      }
    }
  }
}

TEST_CASE("onednn: each worker of a parallel region runs its own shard") {
  const DotProblem problem(16, 128, 192, Fill::random);
  const std::array<int64_t, 1> counts{16};
  std::vector<cpu::OnednnLinear> linears;
  for (int i = 0; i < 2; ++i) {
    linears.emplace_back(cpu::OnednnShape{64, problem.k, problem.ldx, problem.ldacc}, counts);
  }
  Aligned<int32_t> acc(16 * problem.ldacc);
  bool ok[2] = {false, false};
#pragma omp parallel for num_threads(2)
  for (int i = 0; i < 2; ++i) {
    ok[i] = linears[static_cast<size_t>(i)].run(
        {problem.x.data.get(), problem.w.data.get() + i * 64 * problem.k, acc.data.get() + i * 64,
         16, 64, problem.k, problem.ldx, problem.ldacc});
  }
  CHECK((ok[0] && ok[1]));
  for (int64_t m = 0; m < 16; ++m) {
    for (int64_t n = 0; n < 128; ++n) {
      REQUIRE(acc[m * problem.ldacc + n] == problem.expected[static_cast<size_t>(m * 128 + n)]);
    }
  }
}

TEST_CASE("onednn: refuses what it was not prepared for") {
  const std::array<int64_t, 2> counts{4, 8};
  cpu::OnednnLinear linear({64, 64, 64, 64}, counts);
  CHECK(linear.rows(1) == 4);
  CHECK(linear.rows(5) == 8);
  CHECK(linear.rows(9) == 0);
  cpu::DotArgs args;
  args.m = 9;
  CHECK_FALSE(linear.run(args));
  CHECK_THROWS_AS(cpu::OnednnLinear({65, 64, 64, 65}, counts), Error);
  CHECK_THROWS_AS(cpu::OnednnLinear({64, 64, 32, 64}, counts), Error);
  const std::array<int64_t, 2> falling{8, 4};
  CHECK_THROWS_AS(cpu::OnednnLinear({64, 64, 64, 64}, falling), Error);
}

TEST_CASE("onednn: is not accepted where it would run its reference kernel") {
  CHECK_FALSE(cpu::onednn_accepts(cpu::Isa::scalar));
  CHECK_FALSE(cpu::onednn_accepts(cpu::Isa::avx2));
  const std::array<int64_t, 1> counts{64};
  const std::string name = cpu::OnednnLinear({256, 256, 256, 256}, counts).implementation(64);
  for (const cpu::Isa isa : {cpu::Isa::avxvnni, cpu::Isa::avx512vnni, cpu::Isa::amx}) {
    CHECK(cpu::onednn_accepts(isa) == (name.find("ref") == std::string::npos));
  }
}
