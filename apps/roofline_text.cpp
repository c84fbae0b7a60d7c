// The table of `qllm roofline`: what binds, by how much, what to do.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "roofline_run.h"
#include "roofline_stages.h"

namespace qllm::app {
std::string figure(double value) {
  if (value >= 1e6) return fmt::format("{:.3g}", value);
  if (value >= 1000) {
    const auto whole = static_cast<int64_t>(std::llround(value));
    return fmt::format("{},{:03}", whole / 1000, whole % 1000);
  }
  if (value >= 100) return fmt::format("{:.0f}", value);
  if (value >= 10) return fmt::format("{:.1f}", value);
  if (value >= 1) return fmt::format("{:.2f}", value);
  return fmt::format("{:.3g}", value);
}

std::string milliseconds(double s) { return s >= 10 ? figure(s) + " s" : figure(s * 1e3) + " ms"; }

std::string percent(double share) { return fmt::format("{:.0f} %", share * 100); }

std::string bound(const rl::Estimate& e) {
  const double computing = compute_bound_share(e);
  if (computing > 0.5) return "compute " + percent(computing);
  return "memory " + percent(1 - computing);
}

std::string short_name(const std::string& name) {
  constexpr size_t kLongest = 32;
  std::string text;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (text.size() >= kLongest && (byte & 0xC0U) != 0x80U) break;
    text += byte < 0x20 || byte == 0x7F ? '?' : c;
  }
  return text;
}

std::string what_binds(const rl::Estimate& e) {
  const std::string moving =
      fmt::format("{} take {}", human_bytes(e.bytes), milliseconds(e.memory_s));
  if (e.compute_s <= 0) return "bound by memory: " + moving;
  if (e.compute_s <= e.memory_s) {
    return fmt::format("bound by memory: {}, arithmetic {}", moving, milliseconds(e.compute_s));
  }
  return fmt::format("bound by arithmetic: {} take {}, memory {}", human_count(e.operations),
                     milliseconds(e.compute_s), milliseconds(e.memory_s));
}

std::vector<rl::WhatIf> sorted_advice(const RooflineRun& run, size_t device) {
  std::vector<rl::WhatIf> list =
      rl::what_if(run.shape, run.cell(device, 0).decode.workload, run.devices[device]);
  std::stable_sort(list.begin(), list.end(),
                   [](const rl::WhatIf& a, const rl::WhatIf& b) { return a.gain > b.gain; });
  return list;
}

std::string what_to_do(const RooflineRun& run, size_t device) {
  constexpr size_t kMost = 3;
  constexpr double kWorthIt = 1.05;
  std::vector<std::string> parts;
  for (const rl::WhatIf& w : sorted_advice(run, device)) {
    if (parts.size() == kMost || w.gain < kWorthIt) break;
    if (w.name == "experts" || w.name == "bandwidth") continue;  // another model, another device
    parts.push_back(fmt::format("{} x {:.2f}", w.description, w.gain));
  }
  return parts.empty() ? "nothing gains 5 %" : fmt::format("{}", fmt::join(parts, "; "));
}

namespace {

bool has_costs(const RooflineRun& run) {
  return std::any_of(run.costs.begin(), run.costs.end(),
                     [](const Costs& c) { return c.is_given(); });
}

// What tells the cases apart, besides the batch.
std::string case_text(const RooflineRun& run, const RooflineCase& what) {
  std::string text = fmt::format("{}", what.batch);
  const RooflineCase& first = run.cases.front();
  const auto varies = [&](auto member) {
    return std::any_of(run.cases.begin(), run.cases.end(),
                       [&](const RooflineCase& c) { return c.*member != first.*member; });
  };
  if (varies(&RooflineCase::context)) text += fmt::format(", {} ctx", what.context);
  if (varies(&RooflineCase::scheme)) text += ", " + what.scheme;
  return text;
}

std::string phase_table(const RooflineRun& run, rl::Phase phase) {
  const bool is_decode = phase == rl::Phase::decode;
  Table table;
  std::vector<std::string> heading = {is_decode ? "DECODE" : "PREFILL", "batch",    "tokens/s",
                                      is_decode ? "TPOT" : "TTFT",      "bound by", "FFN"};
  if (has_costs(run)) heading.insert(heading.end(), {"kWh/M", "price/M"});
  table.row(heading);
  for (const RooflineCell& cell : run.cells) {
    const rl::Estimate& e = is_decode ? cell.decode : cell.prefill;
    std::vector<std::string> row = {run.devices[cell.device].id,
                                    case_text(run, cell.what),
                                    figure(e.tokens_per_s),
                                    milliseconds(e.step_s),
                                    bound(e),
                                    percent(ffn_share(e))};
    if (has_costs(run)) {
      const Costs& costs = run.costs[cell.device];
      row.push_back(costs.power_w > 0 ? figure(costs.energy(e.tokens_per_s)) : "-");
      row.push_back(costs.price(e.tokens_per_s) > 0 ? figure(costs.price(e.tokens_per_s)) : "-");
    }
    table.row(row);
  }
  return table.text();
}

std::string rates(const rl::Device& d) {
  std::string text = fmt::format("{} GB/s", figure(d.read_gbps));
  if (d.int8_tops > 0) text += fmt::format(", int8 {} TOPS", figure(d.int8_tops));
  if (d.fp16_tflops > 0) text += fmt::format(", fp16 {} TFLOPS", figure(d.fp16_tflops));
  if (d.fp32_tflops > 0 && d.fp16_tflops <= 0) {
    text += fmt::format(", fp32 {} TFLOPS", figure(d.fp32_tflops));
  }
  return text + (d.measured ? " (measured)" : " (data sheet)");
}

// A line of prose, broken before column 80.
std::string folded(std::string text) {
  constexpr size_t kWidth = 80;
  size_t line = 0;
  while (text.size() - line > kWidth) {
    const size_t space = text.rfind(' ', line + kWidth);
    if (space == std::string::npos || space <= line + 10) break;
    text.replace(space, 1, "\n           ");
    line = space + 1;
  }
  return text + "\n";
}

// What a person wants to know first: what binds, by how much, what to do.
std::string in_short(const RooflineRun& run, size_t device) {
  const RooflineCell& cell = run.cell(device, 0);
  const rl::Device& d = run.devices[device];
  std::string text = fmt::format("{}: {}\n", d.id, rates(d));
  text += folded(fmt::format("  decode   {} tokens/s at best, {}", figure(cell.decode.tokens_per_s),
                             what_binds(cell.decode)));
  text += folded(fmt::format("  prefill  {} tokens/s at best, {}",
                             figure(cell.prefill.tokens_per_s), what_binds(cell.prefill)));
  text += folded("  to do    " + what_to_do(run, device));
  if (cell.ffn_compute_bound_batch > 0) {
    text += fmt::format("  batch    the FFN turns compute-bound at {} sequences\n",
                        cell.ffn_compute_bound_batch);
  }
  if (!cell.decode.fits) {
    text += fmt::format("  memory   does not fit: {} of weights and KV, {} GB of memory\n",
                        human_bytes(cell.decode.held_bytes), figure(d.memory_gb));
  }
  return text;
}

// Against the first device.
std::string comparison(const RooflineRun& run, size_t device) {
  const RooflineCell& first = run.cell(0, 0);
  const RooflineCell& cell = run.cell(device, 0);
  return fmt::format("{} against {}: decode x {}, prefill x {}\n", run.devices[device].id,
                     run.devices[0].id, figure(first.decode.step_s / cell.decode.step_s),
                     figure(first.prefill.step_s / cell.prefill.step_s));
}

std::string advice(const RooflineRun& run, size_t device) {
  Table table;
  for (const rl::WhatIf& w : sorted_advice(run, device)) {
    table.row(
        {fmt::format("  x {:.2f}", w.gain), figure(w.tokens_per_s) + " tokens/s", w.description});
  }
  return table.text();
}

std::string op_table(const RooflineRun& run, size_t device, rl::Phase phase) {
  const RooflineCell& cell = run.cell(device, 0);
  const rl::Estimate& e = phase == rl::Phase::decode ? cell.decode : cell.prefill;
  Table table;
  table.row({"op", "bytes", "operations", "ops/byte", "bound", "least time", "share"});
  for (const rl::OpEstimate& op : e.ops) {
    table.row({op_title(op.cost.name), human_bytes(op.cost.bytes()),
               human_count(op.cost.operations),
               op.cost.bytes() > 0 ? figure(op.cost.intensity()) : "-",
               op.is_compute_bound ? "compute" : "memory", milliseconds(op.min_time_s),
               percent(op.min_time_s / e.step_s)});
  }
  return fmt::format("\n{} on {}, batch {}, context {}\n{}", rl::to_string(phase),
                     run.devices[device].id, cell.what.batch, cell.what.context, table.text());
}

// The run beside the bound, stage by stage.
std::string measured_table(const RooflineRun& run, const RooflineCell& cell, rl::Phase phase) {
  const std::optional<MeasuredPhase>& m = cell.measured(phase);
  if (!m) return "";
  std::string text = fmt::format("\n{} measured on {}: batch {}, context {}, {}\n",
                                 rl::to_string(phase), run.devices[cell.device].id, cell.what.batch,
                                 cell.what.context, cell.what.scheme);
  Table table;
  table.row({"stage", "least ms", "measured", "", "x", "share"});
  const auto ms = [](double seconds) { return figure(seconds * 1e3); };
  const auto range = [&](const Spread& s) { return fmt::format("({}-{})", ms(s.min), ms(s.max)); };
  for (size_t i = 0; i < m->stages.size(); ++i) {
    const MeasuredPhase::Stage& stage = m->stages[i];
    if (stage.seconds.median <= 0) continue;
    const double bound = stage.bound_s;
    table.row({roofline_stages()[i].title, bound > 0 ? ms(bound) : "-", ms(stage.seconds.median),
               range(stage.seconds), bound > 0 ? figure(stage.seconds.median / bound) : "-",
               percent(stage.seconds.median / m->step_s.median)});
  }
  table.row({"all", ms(m->bound_s.median), ms(m->step_s.median), range(m->step_s),
             figure(m->ratio.median), "100 %"});
  return text + table.text() +
         fmt::format("measured / at least, round by round: {:.2f} ({:.2f}-{:.2f}); waiting {}\n",
                     m->ratio.median, m->ratio.min, m->ratio.max, percent(m->waiting_share.median));
}

std::string heading(const RooflineRun& run) {
  const RooflineCase& first = run.cases.front();
  const rl::Shape& s = run.shape;
  return fmt::format("{}\n{} weights {}, KV {} {} a token; batch {}, context {}\n",
                     short_name(s.name), first.scheme,
                     human_bytes(rl::weight_bytes(s, first.scheme)), first.kv,
                     human_bytes(rl::kv_bytes_per_token(s, first.kv)), first.batch, first.context) +
         "Ceilings: a run may come near them, not beyond.\n\n";
}

}  // namespace

std::string roofline_text(const RooflineRun& run, bool with_ops) {
  std::string text = heading(run);
  for (size_t d = 0; d < run.devices.size(); ++d) text += in_short(run, d);
  for (size_t d = 1; d < run.devices.size(); ++d) text += comparison(run, d);
  for (const RooflineCell& cell : run.cells) {
    text += measured_table(run, cell, rl::Phase::decode);
    text += measured_table(run, cell, rl::Phase::prefill);
  }
  text += "\n" + phase_table(run, rl::Phase::decode) + "\n" + phase_table(run, rl::Phase::prefill);
  for (size_t d = 0; d < run.devices.size(); ++d) {
    text += fmt::format("\nwhat would help decode at batch {} on {}\n", run.cases.front().batch,
                        run.devices[d].id);
    text += advice(run, d);
    if (!with_ops) continue;
    text += op_table(run, d, rl::Phase::decode) + op_table(run, d, rl::Phase::prefill);
  }
  return text;
}

}  // namespace qllm::app
