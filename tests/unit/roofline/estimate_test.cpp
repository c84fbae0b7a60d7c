#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "qllm/roofline.hpp"
#include "support/errors.h"

using namespace qllm;
using namespace qllm::roofline;
using qllm::test::check_error;

namespace {

/// 100 GB/s and 1 TOPS, 0.5 TFLOPS: the ridge of int8 is at 10 operations a byte.
Device plain_device() {
  Device d;
  d.id = "plain";
  d.read_gbps = 100;
  d.int8_tops = 1;
  d.fp16_tflops = 0.5;
  d.fp32_tflops = 0.5;
  d.memory_gb = 20;
  return d;
}

}  // namespace

TEST_CASE("roofline estimate: each op takes as long as its bytes or its operations") {
  const Shape shape = preset("llama-8b");
  for (const int64_t batch : {1, 4, 16, 64}) {
    const Estimate e = estimate(shape, {.batch = batch}, plain_device());
    double sum = 0;
    int64_t bytes = 0;
    for (const OpEstimate& op : e.ops) {
      const double moving = static_cast<double>(op.cost.bytes()) / 100e9;
      const double rate = op.cost.arithmetic == Arithmetic::int8 ? 1e12 : 0.5e12;
      const double computing = static_cast<double>(op.cost.operations) / rate;
      CHECK(op.min_time_s == doctest::Approx(std::max(moving, computing)));
      CHECK(op.is_compute_bound == (computing > moving));
      sum += op.min_time_s;
      bytes += op.cost.bytes();
    }
    CHECK(e.step_s == doctest::Approx(sum));
    CHECK(e.bytes == bytes);
    CHECK(e.tokens_per_s == doctest::Approx(static_cast<double>(batch) / sum));
  }
}

TEST_CASE("roofline estimate: a peak that is not known binds nothing") {
  Device d = plain_device();
  d.int8_tops = d.fp16_tflops = d.fp32_tflops = 0;
  const Estimate e = estimate(preset("llama-8b"), {.batch = 4096}, d);
  for (const OpEstimate& op : e.ops) CHECK_FALSE(op.is_compute_bound);
  CHECK(e.step_s == doctest::Approx(static_cast<double>(e.bytes) / 100e9));
  CHECK(ffn_compute_bound_batch(preset("llama-8b"), {}, d) == 0);
}

TEST_CASE(
    "roofline estimate: measured kernels hold instead of the peak, the faster neighbour between") {
  Device d = plain_device();
  d.read_gbps = 1e6;  // so that arithmetic binds
  d.kernels = {{"int8", 1, 0.2}, {"int8", 4, 0.6}, {"int8", 16, 0.5}, {"int4-g128", 4, 0.9}};
  const auto rate = [&](int64_t batch, const std::string& scheme, const char* name) {
    for (const OpEstimate& op :
         estimate(preset("llama-8b"), {.batch = batch, .scheme = scheme}, d).ops) {
      if (op.cost.name == name)
        return static_cast<double>(op.cost.operations) / op.min_time_s / 1e12;
    }
    return 0.0;
  };
  CHECK(rate(1, "int8", "gate") == doctest::Approx(0.2));
  CHECK(rate(2, "int8", "gate") == doctest::Approx(0.6));
  CHECK(rate(8, "int8", "down") == doctest::Approx(0.6));
  CHECK(rate(64, "int8", "lm_head") == doctest::Approx(0.5));
  CHECK(rate(4, "int4-g128", "gate") == doctest::Approx(0.9));
  CHECK(rate(4, "int4-g128", "lm_head") == doctest::Approx(0.6));  // stays int8
  CHECK(rate(4, "int4-g64", "gate") == doctest::Approx(1.0));      // not measured: the peak
  CHECK(rate(4, "fp16", "gate") == doctest::Approx(0.5));
  d.read_gbps = 50;  // one token at 0.2 TOPS has 100 GB/s of weights, two at 0.6 have 150
  d.kernels = {{"int8", 1, 0.2}, {"int8", 2, 0.6}, {"int8", 512, 0.6}};
  CHECK(ffn_compute_bound_batch(preset("llama-8b"), {}, d) == 7);  // 2 x 6 / 0.6e12 = 1 / 50e9
}

TEST_CASE("roofline estimate: prefill counts prompt tokens") {
  const Workload w{.phase = Phase::prefill, .batch = 2, .context = 300};
  const Estimate e = estimate(preset("llama-1b"), w, plain_device());
  CHECK(e.tokens_per_s == doctest::Approx(600 / e.step_s));
}

TEST_CASE("roofline estimate: whether it fits into the device's memory") {
  const Shape shape = preset("llama-8b");  // 7.5 GB in int8, 131 kB of keys and values a token
  Workload w{.batch = 1, .context = 1000};
  CHECK(estimate(shape, w, plain_device()).fits);
  w.batch = 1000;
  const Estimate large = estimate(shape, w, plain_device());
  CHECK_FALSE(large.fits);
  CHECK(large.held_bytes ==
        weight_bytes(shape, "int8") + 1000000 * kv_bytes_per_token(shape, "bf16"));
  Device unknown = plain_device();
  unknown.memory_gb = 0;
  CHECK(estimate(shape, w, unknown).fits);
}

TEST_CASE("roofline estimate: the batch where the FFN turns compute-bound") {
  const Shape shape = preset("llama-32b");
  const Device d = plain_device();
  const int64_t batch = ffn_compute_bound_batch(shape, {}, d);
  const auto bound = [&](int64_t b) {
    double moving = 0;
    double computing = 0;
    for (const OpEstimate& op : estimate(shape, {.batch = b}, d).ops) {
      const std::string& n = op.cost.name;
      if (n != "gate" && n != "up" && n != "down") continue;
      moving += static_cast<double>(op.cost.bytes()) / 100e9;
      computing += static_cast<double>(op.cost.operations) / 1e12;
    }
    return computing >= moving;
  };
  CHECK(batch > 4);  // 10 operations a byte, 2 per token
  CHECK(batch < 7);
  CHECK(bound(batch));
  CHECK_FALSE(bound(batch - 1));
}

TEST_CASE("roofline estimate: what changes would buy") {
  const Shape shape = preset("llama-32b");
  double now = estimate(shape, {}, device("xeon-8480+")).tokens_per_s;
  for (const WhatIf& w : what_if(shape, {}, device("xeon-8480+"))) {
    CAPTURE(w.name);
    CHECK(w.gain == doctest::Approx(w.tokens_per_s / now));
    if (w.name == "bandwidth") CHECK(w.gain == doctest::Approx(2).epsilon(0.01));
    if (w.name == "int4") CHECK(w.gain == doctest::Approx(1.85).epsilon(0.05));
    if (w.name == "batch") CHECK(w.gain == doctest::Approx(8).epsilon(0.15));
    if (w.name == "experts") CHECK(w.gain > 2);
    if (w.name == "speculation") CHECK(w.gain == doctest::Approx(2.77).epsilon(0.05));
    CHECK(w.gain > 1);
  }
  for (const WhatIf& w : what_if(preset("mixtral-8x7b"), {.scheme = "int4-g128"}, device("l4"))) {
    CHECK(w.name != "int4");
    CHECK(w.name != "experts");
  }
}

TEST_CASE("roofline devices: every row can be used and names its source") {
  const std::vector<Device> all = devices();
  CHECK(all.size() >= 25);
  for (const Device& d : all) {
    CAPTURE(d.id);
    CHECK_FALSE(d.measured);
    CHECK(d.read_gbps >= 50);
    CHECK(d.read_gbps <= 10000);
    CHECK(d.source.find("20") != std::string::npos);  // a year
    // A rate for a narrower type is never the lower one: a sign of a figure in the wrong place.
    if (d.int8_tops > 0 && d.fp16_tflops > 0) CHECK(d.int8_tops >= 1.9 * d.fp16_tflops);
    if (d.fp16_tflops > 0 && d.fp32_tflops > 0) CHECK(d.fp16_tflops >= 1.9 * d.fp32_tflops);
    CHECK(device(d.id).title == d.title);
    CHECK(estimate(preset("llama-8b"), {}, d).tokens_per_s > 1);
  }
  for (const char* id :
       {"a100-40gb",   "a100-80gb",   "h100-pcie",  "h100-sxm",  "h200",       "b200",
        "l4",          "l40s",        "rtx-3090",   "rtx-4090",  "rtx-5090",   "mi300x",
        "xeon-8480+",  "xeon-8592+",  "xeon-6980p", "epyc-9554", "epyc-9654",  "epyc-9755",
        "ryzen-7950x", "ryzen-9950x", "i9-13900k",  "i9-14900k", "ultra9-285k"}) {
    CHECK(device(id).id == id);
  }
  check_error(ErrorCode::not_found, "h100-sxm", [] { device("h100"); });
}

TEST_CASE("roofline devices: a table with mistakes is refused") {
  const auto refuses = [](const std::string& part, const std::string& rows) {
    check_error(ErrorCode::bad_format, part,
                [&] { parse_devices("{\"devices\": [" + rows + "]}", "table"); });
  };
  const std::string row =
      R"({"id": "x", "kind": "gpu", "title": "X", "read_gbps": 1, "source": "S"})";
  CHECK(parse_devices("{\"devices\": [" + row + "]}", "table").size() == 1);
  refuses("twice", row + "," + row);
  refuses("read_gbps", R"({"id": "x", "kind": "gpu", "title": "X", "source": "S"})");
  refuses("read_gbps",
          R"({"id": "x", "kind": "gpu", "title": "X", "read_gbps": -1, "source": "S"})");
  refuses(
      "int8_tops",
      R"({"id": "x", "kind": "gpu", "title": "X", "read_gbps": 1, "int8_tops": "9", "source": "S"})");
  refuses("source", R"({"id": "x", "kind": "gpu", "title": "X", "read_gbps": 1})");
  refuses("kind", R"({"id": "x", "kind": "tpu", "title": "X", "read_gbps": 1, "source": "S"})");
  check_error(ErrorCode::bad_format, "devices", [] { parse_devices("[]", "table"); });
  check_error(ErrorCode::bad_format, "devices", [] { parse_devices("{", "table"); });
}
