// The least time of a step, and what a change would buy.
#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "qllm/roofline.hpp"

namespace qllm::roofline {
namespace {

constexpr double kGiga = 1e9;
constexpr double kTera = 1e12;
constexpr int64_t kMaxFfnBatch = 65536;
constexpr int64_t kBatchStep = 8;    // what_if: that many times the sequences
constexpr int64_t kDraft = 4;        // what_if: guessed tokens a step
constexpr double kAcceptance = 0.7;  // and how likely each is right
constexpr int64_t kExperts = 8;      // what_if: the FFN's weights in so many experts
constexpr int64_t kExpertsUsed = 2;

/// Operations a second; 0: not known. A device without a rate for a type uses the next wider one.
double peak(const Device& d, Arithmetic arithmetic) {
  double tera = 0;
  switch (arithmetic) {
    case Arithmetic::int8:
      tera = d.int8_tops > 0 ? d.int8_tops : std::max(d.fp16_tflops, d.fp32_tflops);
      break;
    case Arithmetic::fp16:
      tera = d.fp16_tflops > 0 ? d.fp16_tflops : d.fp32_tflops;
      break;
    case Arithmetic::fp32:
      tera = d.fp32_tflops;
      break;
  }
  return tera * kTera;
}

/// Operations a second of kernels that were measured; 0: there is none for such weights. Between
/// two numbers of tokens the greater rate holds, so that what comes of it stays a bound.
double kernel_rate(const Device& d, const OpCost& cost) {
  const Device::Kernel* below = nullptr;
  const Device::Kernel* above = nullptr;
  for (const Device::Kernel& kernel : d.kernels) {
    if (cost.tokens == 0 || kernel.scheme != cost.weights) continue;
    if (kernel.tokens <= cost.tokens && (below == nullptr || kernel.tokens > below->tokens)) {
      below = &kernel;
    }
    if (kernel.tokens >= cost.tokens && (above == nullptr || kernel.tokens < above->tokens)) {
      above = &kernel;
    }
  }
  return std::max(below != nullptr ? below->tops : 0.0, above != nullptr ? above->tops : 0.0) *
         kTera;
}

/// Operations a second that an op can have; 0: not known.
double peak(const Device& d, const OpCost& cost) {
  const double measured = kernel_rate(d, cost);
  return measured > 0 ? measured : peak(d, cost.arithmetic);
}

OpEstimate estimate_op(const OpCost& cost, const Device& device) {
  const double rate = peak(device, cost);
  const double moving = static_cast<double>(cost.bytes()) / (device.read_gbps * kGiga);
  const double computing = rate > 0 ? static_cast<double>(cost.operations) / rate : 0.0;
  return {cost, computing > moving, std::max(moving, computing), moving, computing};
}

int64_t held_bytes(const Shape& shape, const Workload& w) {
  const auto held = static_cast<double>(kv_bytes_per_token(shape, w.kv)) *
                        static_cast<double>(w.context) * static_cast<double>(w.batch) +
                    static_cast<double>(weight_bytes(shape, w.scheme));
  return held < 9e18 ? static_cast<int64_t>(held) : INT64_MAX;
}

double decode_rate(const Shape& shape, const Workload& w, const Device& device) {
  return estimate(shape, w, device).tokens_per_s;
}

bool ffn_is_compute_bound(const Shape& shape, const Workload& w, const Device& device) {
  double moving = 0;
  double computing = 0;
  for (const OpCost& op : count_ops(shape, w)) {
    if (!op.is_ffn) continue;
    moving += static_cast<double>(op.bytes()) / (device.read_gbps * kGiga);
    computing += static_cast<double>(op.operations) / peak(device, op);
  }
  return computing >= moving;
}

/// The same FFN weights in eight experts of which two are used, or nothing where there are experts.
std::optional<Shape> as_experts(const Shape& shape) {
  if (shape.n_moe_layers > 0 || shape.d_ff < kExperts) return std::nullopt;
  Shape s = shape;
  s.n_moe_layers = s.n_layers;
  s.n_experts = kExperts;
  s.n_experts_used = kExpertsUsed;
  s.d_ff_expert = s.d_ff / kExperts;
  return s;
}

/// Tokens that a step yields on average: the guesses up to the first wrong one, and one more.
double expected_tokens() { return (1.0 - std::pow(kAcceptance, kDraft + 1)) / (1.0 - kAcceptance); }

}  // namespace

Estimate estimate(const Shape& shape, const Workload& workload, const Device& device) {
  require(device.read_gbps > 0, ErrorCode::invalid_argument,
          "device {}: its memory bandwidth is not known", device.id);
  Estimate e;
  e.workload = workload;
  for (const OpCost& cost : count_ops(shape, workload)) {
    e.ops.push_back(estimate_op(cost, device));
    e.step_s += e.ops.back().min_time_s;
    e.memory_s += e.ops.back().memory_s;
    e.compute_s += e.ops.back().compute_s;
    e.bytes += cost.bytes();
    e.operations += cost.operations;
  }
  const auto sequences = static_cast<double>(workload.batch);
  const auto each = workload.phase == Phase::prefill ? static_cast<double>(workload.context) : 1.0;
  e.tokens_per_s = sequences * each / e.step_s;
  e.held_bytes = held_bytes(shape, workload);
  e.fits = device.memory_gb <= 0 || static_cast<double>(e.held_bytes) <= device.memory_gb * kGiga;
  return e;
}

int64_t ffn_compute_bound_batch(const Shape& shape, const Workload& workload,
                                const Device& device) {
  Workload w = workload;
  w.phase = Phase::decode;
  w.draft = 0;
  w.batch = kMaxFfnBatch;
  const OpCost head = count_ops(shape, w).back();  // its rate is known where the FFN's is
  if (peak(device, head) <= 0 || !ffn_is_compute_bound(shape, w, device)) return 0;
  int64_t low = 0;  // not compute-bound; high is
  int64_t high = kMaxFfnBatch;
  while (high - low > 1) {
    w.batch = low + (high - low) / 2;
    (ffn_is_compute_bound(shape, w, device) ? high : low) = w.batch;
  }
  return high;
}

std::vector<WhatIf> what_if(const Shape& shape, const Workload& workload, const Device& device) {
  Workload base = workload;
  base.phase = Phase::decode;
  base.draft = 0;
  const double now = decode_rate(shape, base, device);
  std::vector<WhatIf> list;
  const auto add = [&](const char* name, std::string description, double rate) {
    list.push_back({name, std::move(description), rate, rate / now});
  };
  if (base.scheme.rfind("int4", 0) != 0) {
    Workload w = base;
    w.scheme = "int4-g128";
    add("int4", "4-bit weights (int4-g128)", decode_rate(shape, w, device));
  }
  Workload larger = base;
  larger.batch = base.batch * kBatchStep;
  add("batch", fmt::format("{} sequences instead of {}", larger.batch, base.batch),
      decode_rate(shape, larger, device));
  if (const auto moe = as_experts(shape)) {
    add("experts",
        fmt::format("another model: the FFN in {} experts, {} used", kExperts, kExpertsUsed),
        decode_rate(*moe, base, device));
  }
  if (base.context > kDraft) {
    Workload w = base;
    w.draft = kDraft;
    add("speculation",
        fmt::format("{} guessed tokens, {:.0f} % right each", kDraft, kAcceptance * 100),
        decode_rate(shape, w, device) * expected_tokens());
  }
  Device wider = device;
  wider.read_gbps *= 2;
  add("bandwidth", device.is_gpu ? "twice the memory bandwidth" : "twice the memory channels",
      decode_rate(shape, base, wider));
  if (base.kv != "int8") {
    Workload w = base;
    w.kv = "int8";
    add("kv", "8-bit keys and values", decode_rate(shape, w, device));
  }
  return list;
}

}  // namespace qllm::roofline
