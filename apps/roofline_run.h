// What `qllm roofline` works out: a shape on devices, for every batch, context and scheme.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qllm/roofline.hpp"
#include "report.h"

namespace qllm::app {

namespace rl = qllm::roofline;

/// Power and price that the user gives, for one device.
struct Costs {
  double power_w = 0;     // 0: not given
  double price_kwh = 0;   // of a kWh
  double price_hour = 0;  // of an hour of the device, power aside

  bool is_given() const { return power_w > 0 || price_hour > 0; }
  /// kWh for a million tokens.
  double energy(double tokens_per_s) const;
  /// Price of a million tokens, in the user's currency.
  double price(double tokens_per_s) const;
};

struct RooflineCase {
  int64_t batch = 1;
  int64_t context = 2048;
  std::string scheme;
  std::string kv;
};

/// What a run took, beside the bound by ceilings of the same minutes; seconds.
struct MeasuredPhase {
  struct Stage {
    Spread seconds;
    double bound_s = 0;  // median
  };
  Spread step_s;
  Spread bound_s;             // of the stages that were timed
  Spread ratio;               // of each round, step_s / bound_s
  Spread waiting_share;       // of the step, in which a worker waits for the others
  std::vector<Stage> stages;  // of roofline_stages()
};

/// Both phases of one case on one device.
struct RooflineCell {
  size_t device = 0;
  RooflineCase what;
  rl::Estimate prefill;
  rl::Estimate decode;
  int64_t ffn_compute_bound_batch = 0;
  std::optional<MeasuredPhase> measured_prefill = {};
  std::optional<MeasuredPhase> measured_decode = {};
  std::optional<rl::Device> ceilings = {};  // of the rounds of decode, where they were measured

  const std::optional<MeasuredPhase>& measured(rl::Phase phase) const {
    return phase == rl::Phase::prefill ? measured_prefill : measured_decode;
  }
  double ttft_ms() const { return prefill.step_s * 1e3; }
  double tpot_ms() const { return decode.step_s * 1e3; }
};

struct RooflineRun {
  rl::Shape shape;
  std::vector<rl::Device> devices;
  std::vector<Costs> costs;         // of each device
  std::vector<RooflineCase> cases;  // the first one is what advice is given for
  std::vector<RooflineCell> cells;  // device by device, in the order of the cases

  const RooflineCell& cell(size_t device, size_t which) const {
    return cells[device * cases.size() + which];
  }
};

/// Fills `cells`.
void work_out(RooflineRun& run);

/// Share of an estimate's time in ops that are bound by arithmetic.
double compute_bound_share(const rl::Estimate& estimate);
/// Share of its time in the FFN's matrices, and in reading keys and values.
double ffn_share(const rl::Estimate& estimate);
double attention_share(const rl::Estimate& estimate);

/// "gate" -> "FFN gate": how tables and plots name an op.
std::string op_title(const std::string& name);

/// Three digits that matter: "0.71", "28.4", "1,240".
std::string figure(double value);
/// "12.4 ms", "31.2 s".
std::string milliseconds(double s);
/// "84 %" of 0.84.
std::string percent(double share);
/// "memory 100 %": what binds, and in what share of the time.
std::string bound(const rl::Estimate& e);
/// "bound by memory: 31.8 GB take 37.6 ms, arithmetic 0.23 ms".
std::string what_binds(const rl::Estimate& e);
/// What changes would buy in decode, for the first case, the best first.
std::vector<rl::WhatIf> sorted_advice(const RooflineRun& run, size_t device);
/// The three that gain most with this model on this device, in words.
std::string what_to_do(const RooflineRun& run, size_t device);
/// At most some 32 characters of a name that may come from a hostile file: no control characters.
std::string short_name(const std::string& name);

Json roofline_json(const RooflineRun& run);
/// One line per op, device, case and phase.
std::string roofline_csv(const RooflineRun& run);
/// For people: at most 80 columns. `with_ops`: also a table of every op of the first case.
std::string roofline_text(const RooflineRun& run, bool with_ops);
/// A page that needs nothing else. Draws with gnuplot. Throws Error (not_found) without it.
std::string roofline_html(const RooflineRun& run);

}  // namespace qllm::app
