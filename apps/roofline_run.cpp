#include "roofline_run.h"

#include <fmt/format.h>

#include <map>

#include "roofline_stages.h"

namespace qllm::app {
namespace {

constexpr double kMillion = 1e6;
constexpr double kSecondsPerHour = 3600;

template <typename Belongs>
double share(const rl::Estimate& estimate, const Belongs& belongs) {
  double part = 0;
  for (const rl::OpEstimate& op : estimate.ops) {
    if (belongs(op)) part += op.min_time_s;
  }
  return part / estimate.step_s;
}

Json known(double figure) { return figure > 0 ? Json(figure) : Json(nullptr); }

Spread scaled(const Spread& s, double factor) {
  return {s.median * factor, s.min * factor, s.max * factor};
}

Json device_json(const rl::Device& d) {
  Json json;
  json["id"] = d.id;
  json["title"] = d.title;
  json["kind"] = d.is_gpu ? "gpu" : "cpu";
  json["figures"] = d.measured ? "measured" : "data sheet";
  json["read_gbps"] = d.read_gbps;
  json["int8_tops"] = known(d.int8_tops);
  json["fp16_tflops"] = known(d.fp16_tflops);
  json["fp32_tflops"] = known(d.fp32_tflops);
  Json& kernels = json["kernels"] = Json::array();
  for (const rl::Device::Kernel& k : d.kernels) {
    kernels.push_back({{"scheme", k.scheme}, {"tokens", k.tokens}, {"tops", k.tops}});
  }
  json["memory_gb"] = known(d.memory_gb);
  json["tdp_w"] = known(d.tdp_w);
  json["pcie_gbps"] = known(d.pcie_gbps);
  json["source"] = d.source;
  json["derivation"] = d.derivation;
  return json;
}

Json model_json(const rl::Shape& s) {
  Json json;
  json["name"] = s.name;
  json["source"] = s.source;
  json["vocab_size"] = s.vocab;
  json["d_model"] = s.d_model;
  json["d_ff"] = s.d_ff;
  json["n_layers"] = s.n_layers;
  json["n_heads"] = s.n_heads;
  json["n_kv_heads"] = s.n_kv_heads;
  json["head_dim"] = s.head_dim;
  json["sliding_window"] = s.sliding_window;
  json["n_moe_layers"] = s.n_moe_layers;
  json["n_experts"] = s.n_experts;
  json["n_experts_used"] = s.n_experts_used;
  json["d_ff_expert"] = s.d_ff_expert;
  json["d_ff_shared"] = s.d_ff_shared;
  json["ffn_parameters"] = rl::ffn_parameters(s);
  return json;
}

// What tells one row from another.
void set_case(Json& row, const RooflineRun& run, const RooflineCell& cell, rl::Phase phase) {
  row["phase"] = rl::to_string(phase);
  row["device"] = run.devices[cell.device].id;
  row["batch"] = cell.what.batch;
  row["context"] = cell.what.context;
  row["scheme"] = cell.what.scheme;
  row["kv"] = cell.what.kv;
}

/// Ops that run as one stage share its time as their bounds stand to each other.
Json measured_ns(const rl::OpEstimate& op, const std::optional<MeasuredPhase>& measured) {
  if (!measured) return nullptr;
  const MeasuredPhase::Stage& stage = measured->stages[stage_of_op(op.cost.name)];
  if (stage.seconds.median <= 0 || stage.bound_s <= 0) return nullptr;
  return stage.seconds.median * op.min_time_s / stage.bound_s * 1e9;
}

Json op_json(const rl::OpEstimate& op, const std::optional<MeasuredPhase>& measured) {
  Json json;
  json["name"] = op.cost.name;
  json["stage"] = roofline_stages()[stage_of_op(op.cost.name)].name;
  json["count"] = op.cost.count;
  json["bytes"] = op.cost.bytes();
  json["weight_bytes"] = op.cost.weight_bytes;
  json["kv_bytes"] = op.cost.kv_bytes;
  json["activation_bytes"] = op.cost.activation_bytes;
  json["operations"] = op.cost.operations;
  json["intensity"] = op.cost.bytes() > 0 ? Json(op.cost.intensity()) : Json(nullptr);
  json["bound"] = op.is_compute_bound ? "compute" : "memory";
  json["min_time_ns"] = op.min_time_s * 1e9;
  json["measured_ns"] = measured_ns(op, measured);
  return json;
}

/// Measured stages of a cell, appended to `list`.
void append_stages(Json& list, const RooflineRun& run, const RooflineCell& cell, rl::Phase phase) {
  const std::optional<MeasuredPhase>& measured = cell.measured(phase);
  if (!measured) return;
  for (size_t i = 0; i < measured->stages.size(); ++i) {
    const MeasuredPhase::Stage& stage = measured->stages[i];
    if (stage.seconds.median <= 0) continue;
    Json& row = list.emplace_back();
    set_case(row, run, cell, phase);
    row["name"] = roofline_stages()[i].name;
    row["ops"] = roofline_stages()[i].ops;
    row["min_time_ns"] = stage.bound_s * 1e9;
    row["measured_ns"] = stage.seconds.median * 1e9;
    row["measured_ns_min"] = stage.seconds.min * 1e9;
    row["measured_ns_max"] = stage.seconds.max * 1e9;
  }
}

Json phase_json(const RooflineRun& run, const RooflineCell& cell, rl::Phase phase) {
  const rl::Estimate& e = phase == rl::Phase::prefill ? cell.prefill : cell.decode;
  const Costs& costs = run.costs[cell.device];
  Json json;
  set_case(json, run, cell, phase);
  json["tokens_per_s_ceiling"] = e.tokens_per_s;
  json["ttft_ms"] = cell.ttft_ms();
  json["tpot_ms"] = cell.tpot_ms();
  json["bytes"] = e.bytes;
  json["operations"] = e.operations;
  json["compute_bound_share"] = compute_bound_share(e);
  json["ffn_share"] = ffn_share(e);
  json["attention_share"] = attention_share(e);
  json["ffn_compute_bound_batch"] =
      cell.ffn_compute_bound_batch > 0 ? Json(cell.ffn_compute_bound_batch) : Json(nullptr);
  json["held_bytes"] = e.held_bytes;
  json["fits"] = e.fits;
  if (const auto& measured = cell.measured(phase)) {
    set_spread(json, "measured_ms", scaled(measured->step_s, 1e3));
    set_spread(json, "bound_ms", scaled(measured->bound_s, 1e3));
    set_spread(json, "measured_over_bound", measured->ratio);
    set_spread(json, "waiting_share", measured->waiting_share);
    json["ceilings"] = device_json(*cell.ceilings);
  }
  json["kwh_per_million_tokens"] = known(costs.energy(e.tokens_per_s));
  json["price_per_million_tokens"] = known(costs.price(e.tokens_per_s));
  return json;
}

Json what_if_json(const RooflineRun& run) {
  Json list = Json::array();
  for (size_t d = 0; d < run.devices.size(); ++d) {
    const RooflineCell& cell = run.cell(d, 0);
    for (const rl::WhatIf& w : rl::what_if(run.shape, cell.decode.workload, run.devices[d])) {
      Json& row = list.emplace_back();
      set_case(row, run, cell, rl::Phase::decode);
      row["name"] = w.name;
      row["description"] = w.description;
      row["tokens_per_s_ceiling"] = w.tokens_per_s;
      row["gain"] = w.gain;
    }
  }
  return list;
}

}  // namespace

double Costs::energy(double tokens_per_s) const {
  return power_w / 1000 / kSecondsPerHour * kMillion / tokens_per_s;
}

double Costs::price(double tokens_per_s) const {
  return energy(tokens_per_s) * price_kwh + price_hour / kSecondsPerHour * kMillion / tokens_per_s;
}

void work_out(RooflineRun& run) {
  for (size_t d = 0; d < run.devices.size(); ++d) {
    for (const RooflineCase& what : run.cases) {
      RooflineCell& cell = run.cells.emplace_back();
      cell.device = d;
      cell.what = what;
      rl::Workload work{rl::Phase::prefill, what.batch, what.context, what.scheme, what.kv, 0};
      cell.prefill = rl::estimate(run.shape, work, run.devices[d]);
      work.phase = rl::Phase::decode;
      cell.decode = rl::estimate(run.shape, work, run.devices[d]);
      cell.ffn_compute_bound_batch = rl::ffn_compute_bound_batch(run.shape, work, run.devices[d]);
    }
  }
}

double compute_bound_share(const rl::Estimate& estimate) {
  return share(estimate, [](const rl::OpEstimate& op) { return op.is_compute_bound; });
}

double ffn_share(const rl::Estimate& estimate) {
  return share(estimate, [](const rl::OpEstimate& op) { return op.cost.is_ffn; });
}

double attention_share(const rl::Estimate& estimate) {
  return share(estimate, [](const rl::OpEstimate& op) {
    return op.cost.name == "qk" || op.cost.name == "softmax" || op.cost.name == "av";
  });
}

std::string op_title(const std::string& name) {
  static const std::map<std::string, std::string> kTitles = {
      {"embedding", "embedding gather"},
      {"norm", "norms"},
      {"quantize", "quantization"},
      {"q", "Q"},
      {"k", "K"},
      {"v", "V"},
      {"rope", "rotary positions"},
      {"kv_write", "KV write"},
      {"qk", "Q x K^T"},
      {"av", "A x V"},
      {"o", "O"},
      {"gate", "FFN gate"},
      {"up", "FFN up"},
      {"swiglu", "SwiGLU"},
      {"down", "FFN down"},
      {"expert_gate", "experts gate"},
      {"expert_up", "experts up"},
      {"expert_swiglu", "experts SwiGLU"},
      {"expert_down", "experts down"},
      {"shared_gate", "shared gate"},
      {"shared_up", "shared up"},
      {"shared_swiglu", "shared SwiGLU"},
      {"shared_down", "shared down"},
      {"lm_head", "LM head"},
  };
  const auto found = kTitles.find(name);
  return found == kTitles.end() ? name : found->second;
}

Json roofline_json(const RooflineRun& run) {
  Json json;
  json["model"] = model_json(run.shape);
  Json& devices = json["devices"] = Json::array();
  for (const rl::Device& d : run.devices) devices.push_back(device_json(d));
  Json& phases = json["phases"] = Json::array();
  Json& ops = json["ops"] = Json::array();
  Json stages = Json::array();
  for (const RooflineCell& cell : run.cells) {
    for (const rl::Phase phase : {rl::Phase::prefill, rl::Phase::decode}) {
      phases.push_back(phase_json(run, cell, phase));
      append_stages(stages, run, cell, phase);
      const rl::Estimate& e = phase == rl::Phase::prefill ? cell.prefill : cell.decode;
      for (const rl::OpEstimate& op : e.ops) {
        Json& row = ops.emplace_back();
        set_case(row, run, cell, phase);
        row.update(op_json(op, cell.measured(phase)));
      }
    }
  }
  if (!stages.empty()) json["stages"] = stages;
  json["what_if"] = what_if_json(run);
  return json;
}

std::string roofline_csv(const RooflineRun& run) {
  Table table;
  table.row({"phase", "device", "batch", "context", "scheme", "kv", "name", "count", "bytes",
             "operations", "intensity", "bound", "min_time_ns", "measured_ns"});
  for (const RooflineCell& cell : run.cells) {
    for (const rl::Estimate* e : {&cell.prefill, &cell.decode}) {
      for (const rl::OpEstimate& op : e->ops) {
        const Json measured = measured_ns(op, cell.measured(e->workload.phase));
        table.row({std::string(rl::to_string(e->workload.phase)), run.devices[cell.device].id,
                   std::to_string(cell.what.batch), std::to_string(cell.what.context),
                   cell.what.scheme, cell.what.kv, op.cost.name, std::to_string(op.cost.count),
                   std::to_string(op.cost.bytes()), std::to_string(op.cost.operations),
                   fmt::format("{:.6g}", op.cost.intensity()),
                   op.is_compute_bound ? "compute" : "memory",
                   fmt::format("{:.6g}", op.min_time_s * 1e9),
                   measured.is_null() ? "" : fmt::format("{:.6g}", measured.get<double>())});
      }
    }
  }
  return table.csv();
}

}  // namespace qllm::app
