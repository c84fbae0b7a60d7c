#include "kernel_rate.h"

#include <doctest/doctest.h>

#include "peak.h"

namespace {

using namespace qllm;
using namespace qllm::cpu;

const WeightFormat kRows{};
const WeightFormat kGroups{WeightFormat::Kind::groups, {4, 128, GroupScales::f16_min}};

TEST_CASE("kernel rate: every tier, both kinds of weights, of the order of the registers' peak") {
  const auto topology = Topology::detect({1, "", ""});
  WorkerPool pool(*topology);
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avxvnni, Isa::avx512vnni, Isa::amx}) {
    if (!isa_available(isa)) continue;
    // 4-bit codes may be multiplied in a way that takes two products an instruction more.
    const double peak = measure_peak_tops(pool, int8_peak_kernel(isa, true));
    for (const WeightFormat& format : {kRows, kGroups}) {
      for (const int64_t tokens : {1, 3, 16}) {
        const double tops = measure_kernel_tops(pool, isa, false, format, tokens);
        CAPTURE(tokens);
        CHECK(tops > 1e-5);
        CHECK(tops < 3 * peak);  // twice, and a clock that rises meanwhile
      }
    }
  }
}

TEST_CASE("kernel rate: nothing where there is nothing to measure") {
  const auto topology = Topology::detect({1, "", ""});
  WorkerPool pool(*topology);
  CHECK(measure_kernel_tops(pool, Isa::scalar, false, kRows, 0) == 0);
  CHECK(measure_kernel_tops(pool, Isa::scalar, false, kRows, 1 << 20) == 0);
  CHECK(measure_kernel_tops(pool, Isa::scalar, false, {WeightFormat::Kind::f32, {}}, 4) == 0);
}

}  // namespace
