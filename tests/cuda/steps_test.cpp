// Whole steps of the CUDA backend against the reference under the same scheme: integer sums are
// equal and both store the same keys and values, in bf16, f16 or int8 (support/agreement.h derives
// the bounds). Runs on the library that QLLM_CUDA_PLUGIN names: the real one, or the emulated one.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/error.h"
#include "support/agreement.h"
#include "support/cuda_or_skip.h"
#include "support/device_steps.h"

using namespace qllm;  // NOLINT

namespace {

void check_steps(const std::string& scheme, KvFormat format, const test::StepsShape& shape,
                 test::Agreement* agreement) {
  const BackendOptions options = test::options_of(scheme, format);
  test::StepsMachine oracle(make_backend("reference", options), shape);
  test::StepsMachine machine(test::make_cuda(options), shape);
  for (const auto& counts : test::kSteps) {
    agreement->compare(machine.step(counts), oracle.step(counts), test::kVocab);
  }
}

}  // namespace

TEST_CASE("cuda steps: equal the reference of the same scheme") {
  if (!test::cuda_or_skip()) return;
  for (const char* scheme : {"int8", "int4-g32", "int4-g128-sym", "keep"}) {
    CAPTURE(scheme);
    test::Agreement agreement;
    for (test::StepsShape shape :
         {test::StepsShape{}, {192, 128, 6, 3, 64}, {256, 256, 3, 3, 24}}) {
      shape.on_grids = std::string(scheme) == "keep";
      check_steps(scheme, KvFormat::bf16, shape, &agreement);
    }
    INFO(agreement.close, " of ", agreement.rows, " rows close, largest ", agreement.largest);
    CHECK(agreement.largest < test::Agreement::kRoundedAnew);
  }
}

TEST_CASE("cuda steps: every format of keys and values") {
  if (!test::cuda_or_skip()) return;
  for (const KvFormat format : {KvFormat::bf16, KvFormat::f16, KvFormat::int8}) {
    CAPTURE(static_cast<int>(format));
    test::Agreement agreement;
    for (const test::StepsShape& shape : {test::StepsShape{}, {128, 128, 8, 1, 64}}) {
      check_steps("int8", format, shape, &agreement);
    }
    // int8: four roundings to 8 bits more than the nine that the bound is made of.
    const double roundings = format == KvFormat::int8 ? 13 : 9;
    CHECK(agreement.largest < test::Agreement::kRoundedAnew * std::sqrt(roundings / 9));
  }
}
