#include "peak.h"

#include <doctest/doctest.h>

#include <string>

namespace {

using namespace qllm::cpu;

TEST_CASE("peak: a tier's own loop where it has one, never one that the machine lacks") {
  CHECK(int8_peak_kernel(Isa::scalar, false).isa == Isa::scalar);
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avxvnni, Isa::avx512vnni, Isa::amx}) {
    if (!isa_available(isa)) continue;
    const PeakKernel& kernel = int8_peak_kernel(isa, false);
    CHECK(kernel.isa == isa);
    CHECK(kernel.type == PeakType::int8);
  }
  CHECK(int8_peak_kernel(Isa::scalar, true).isa == best_isa());
}

TEST_CASE("peak: a figure that a machine can have") {
  const auto topology = Topology::detect({1, "", ""});
  WorkerPool pool(*topology);
  for (const PeakKernel& kernel : peak_kernels()) {
    if (!isa_available(kernel.isa)) continue;
    const double tops = measure_peak_tops(pool, kernel);
    const std::string name(kernel.name);
    CAPTURE(name);
    CHECK(tops > 1e-5);
    CHECK(tops < 100);
  }
}

}  // namespace
