// The page of `qllm roofline --html`: one file, no script, nothing from the network. It is
// well-formed XML besides, so that tests can read it.
#include <fmt/format.h>

#include <algorithm>

#include "roofline_plots.h"
#include "roofline_run.h"
#include "roofline_stages.h"

namespace qllm::app {
namespace {

constexpr const char* kStyle = R"(
body { font: 16px/1.5 system-ui, 'DejaVu Sans', sans-serif; color: #222; background: #fff;
       max-width: 1000px; margin: 0 auto; padding: 0 16px 48px; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.2em; margin-top: 2em; }
.lead { color: #555; margin-top: 0.2em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88em; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.5em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text { text-align: left; }
td.text { white-space: normal; min-width: 16em; }
figure { margin: 2em 0 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; }
.narrow { display: none; }
.hint { color: #666; font-size: 0.88em; }
@media (max-width: 700px) { .wide { display: none; } .narrow { display: block; } body { padding: 0 8px 32px; } }
@media print { .wide { display: block; } .narrow { display: none; } figure, table { break-inside: avoid; }
  body { max-width: none; font-size: 11px; } .scroll { overflow: visible; } table { font-size: 0.75em; } }
)";

// XML's five, and no control characters, which XML forbids; what is no UTF-8 becomes '?'.
std::string escaped(const std::string& text) {
  const std::string valid = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto clean = Json::parse(valid).get<std::string>();
  std::string out;
  for (const char c : clean) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return out;
}

/// Cells are escaped; those of the columns named in `prose` may wrap.
class HtmlTable {
 public:
  explicit HtmlTable(const std::vector<std::string>& heading) {
    text_ = "<div class=\"scroll\"><table><thead><tr>";
    for (const std::string& cell : heading) text_ += "<th>" + escaped(cell) + "</th>";
    text_ += "</tr></thead><tbody>\n";
  }
  void row(const std::vector<std::string>& cells, bool last_is_prose = false) {
    text_ += "<tr>";
    for (size_t i = 0; i < cells.size(); ++i) {
      const bool is_prose = last_is_prose && i + 1 == cells.size();
      text_ += (is_prose ? "<td class=\"text\">" : "<td>") + escaped(cells[i]) + "</td>";
    }
    text_ += "</tr>\n";
  }
  std::string text() const { return text_ + "</tbody></table></div>\n"; }

 private:
  std::string text_;
};

std::string known(double value) { return value > 0 ? figure(value) : "–"; }

bool has_costs(const RooflineRun& run) {
  return std::any_of(run.costs.begin(), run.costs.end(),
                     [](const Costs& c) { return c.is_given(); });
}

// What all cases agree in stands above the table.
bool varies(const RooflineRun& run, bool (*differ)(const RooflineCase&, const RooflineCase&)) {
  return std::any_of(run.cases.begin(), run.cases.end(),
                     [&](const RooflineCase& c) { return differ(c, run.cases.front()); });
}

std::string ceilings_table(const RooflineRun& run) {
  using Case = RooflineCase;
  const bool contexts =
      varies(run, [](const Case& a, const Case& b) { return a.context != b.context; });
  const bool schemes =
      varies(run, [](const Case& a, const Case& b) { return a.scheme != b.scheme; });
  std::vector<std::string> heading = {"device", "batch"};
  if (contexts) heading.emplace_back("context");
  if (schemes) heading.emplace_back("weights");
  heading.insert(heading.end(),
                 {"decode tokens/s", "TPOT", "bound by", "prefill tokens/s", "bound by", "TTFT"});
  if (has_costs(run)) heading.insert(heading.end(), {"kWh per M tokens", "price per M"});
  heading.emplace_back("memory");
  HtmlTable table(heading);
  for (const RooflineCell& cell : run.cells) {
    const Costs& costs = run.costs[cell.device];
    const double rate = cell.decode.tokens_per_s;
    std::vector<std::string> row = {run.devices[cell.device].id, std::to_string(cell.what.batch)};
    if (contexts) row.push_back(std::to_string(cell.what.context));
    if (schemes) row.push_back(cell.what.scheme);
    row.insert(row.end(), {figure(rate), milliseconds(cell.decode.step_s), bound(cell.decode),
                           figure(cell.prefill.tokens_per_s), bound(cell.prefill),
                           milliseconds(cell.prefill.step_s)});
    if (has_costs(run)) {
      row.insert(row.end(), {known(costs.energy(rate)), known(costs.price(rate))});
    }
    row.push_back(human_bytes(cell.decode.held_bytes) + (cell.decode.fits ? "" : ": does not fit"));
    table.row(row);
  }
  return table.text();
}

std::string advice_table(const RooflineRun& run) {
  HtmlTable table({"device", "gain", "tokens/s", "what"});
  for (size_t d = 0; d < run.devices.size(); ++d) {
    for (const rl::WhatIf& w : sorted_advice(run, d)) {
      table.row({run.devices[d].id, fmt::format("× {:.2f}", w.gain), figure(w.tokens_per_s),
                 w.description},
                true);
    }
  }
  return table.text();
}

// What binds, by how much, what to do: a paragraph for each device.
std::string in_short(const RooflineRun& run) {
  std::string text;
  for (size_t d = 0; d < run.devices.size(); ++d) {
    const RooflineCell& cell = run.cell(d, 0);
    const int64_t turn = cell.ffn_compute_bound_batch;
    text += fmt::format(
        "<p><b>{}</b>: decode {} tokens/s at best, {}; prefill {} tokens/s at best, {}. {}{}</p>\n",
        escaped(run.devices[d].id), figure(cell.decode.tokens_per_s),
        escaped(what_binds(cell.decode)), figure(cell.prefill.tokens_per_s),
        escaped(what_binds(cell.prefill)),
        turn > 0 ? fmt::format("The FFN turns compute-bound at {} sequences. ", turn) : "",
        "To do: " + escaped(what_to_do(run, d)) + ".");
  }
  return text;
}

std::string ops_table(const RooflineRun& run, size_t device, const rl::Estimate& e) {
  HtmlTable table({"op", "count", "bytes", "operations", "operations per byte", "bound by",
                   "least time", "share"});
  for (const rl::OpEstimate& op : e.ops) {
    table.row({op_title(op.cost.name), std::to_string(op.cost.count), human_bytes(op.cost.bytes()),
               human_count(op.cost.operations),
               op.cost.bytes() > 0 ? figure(op.cost.intensity()) : "–",
               op.is_compute_bound ? "compute" : "memory", milliseconds(op.min_time_s),
               percent(op.min_time_s / e.step_s)});
  }
  return fmt::format("<h3>{} on {}</h3>\n", rl::to_string(e.workload.phase),
                     escaped(run.devices[device].id)) +
         table.text();
}

// Every run, stage by stage.
std::string measured_tables(const RooflineRun& run) {
  std::string text;
  const auto ms = [](double seconds) { return figure(seconds * 1e3); };
  for (const RooflineCell& cell : run.cells) {
    for (const rl::Phase phase : {rl::Phase::decode, rl::Phase::prefill}) {
      const std::optional<MeasuredPhase>& m = cell.measured(phase);
      if (!m) continue;
      HtmlTable table({"stage", "at least, ms", "measured, ms", "least to most", "ratio"});
      const auto row = [&](const std::string& name, double bound, const Spread& took) {
        table.row({name, known(bound * 1e3), ms(took.median),
                   fmt::format("{} – {}", ms(took.min), ms(took.max)),
                   bound > 0 ? figure(took.median / bound) : "–"});
      };
      for (size_t i = 0; i < m->stages.size(); ++i) {
        const MeasuredPhase::Stage& stage = m->stages[i];
        if (stage.seconds.median > 0) {
          row(roofline_stages()[i].title, stage.bound_s, stage.seconds);
        }
      }
      row("all", m->bound_s.median, m->step_s);
      text += fmt::format("<h3>{} on {}: batch {}, context {}, {}</h3>\n", rl::to_string(phase),
                          escaped(run.devices[cell.device].id), cell.what.batch, cell.what.context,
                          escaped(cell.what.scheme)) +
              table.text();
    }
  }
  return text.empty() ? text : "<h2>Measured beside the bounds</h2>\n" + text;
}

std::string devices_table(const RooflineRun& run) {
  HtmlTable table({"device", "GB/s", "int8 TOPS", "fp16 TFLOPS", "fp32 TFLOPS",
                   "FFN compute-bound from batch", "figures from"});
  for (size_t d = 0; d < run.devices.size(); ++d) {
    const rl::Device& device = run.devices[d];
    const int64_t turn = run.cell(d, 0).ffn_compute_bound_batch;
    std::string source =
        device.title + "; " + (device.measured ? "" : "data sheet: ") + device.source;
    if (!device.derivation.empty()) source += "; " + device.derivation;
    table.row(
        {device.id, figure(device.read_gbps), known(device.int8_tops), known(device.fp16_tflops),
         known(device.fp32_tflops), turn > 0 ? std::to_string(turn) : "–", source},
        true);
  }
  return table.text();
}

std::string plot_figure(const Plot& plot) {
  return fmt::format(
      "<figure><figcaption>{}</figcaption>\n<div class=\"wide\">{}</div>\n<div "
      "class=\"narrow\">{}</div></figure>\n",
      escaped(plot.title), plot.wide, plot.narrow);
}

std::string page_body(const RooflineRun& run) {
  const RooflineCase& first = run.cases.front();
  std::string body = fmt::format("<h1>{}</h1>\n", escaped(short_name(run.shape.name)));
  body += fmt::format(
      "<p class=\"lead\">{} of weights ({}), {} of keys and values ({}) per token of context. "
      "Batch {}, context {}. Ceilings: a run may come near them, not beyond.</p>\n",
      human_bytes(rl::weight_bytes(run.shape, first.scheme)), escaped(first.scheme),
      human_bytes(rl::kv_bytes_per_token(run.shape, first.kv)), escaped(first.kv), first.batch,
      first.context);
  body += in_short(run) + ceilings_table(run);
  for (const Plot& plot : roofline_plots(run)) body += plot_figure(plot);
  body += measured_tables(run);
  body += fmt::format("<h2>What would help decode at batch {}</h2>\n", first.batch);
  body += advice_table(run) + "<h2>Devices</h2>\n" + devices_table(run);
  body += fmt::format("<h2>Every op, batch {}, context {}</h2>\n", first.batch, first.context);
  for (size_t d = 0; d < run.devices.size(); ++d) {
    body += ops_table(run, d, run.cell(d, 0).decode) + ops_table(run, d, run.cell(d, 0).prefill);
  }
  return body + fmt::format("<p class=\"hint\">qllm {} roofline</p>\n", version());
}

}  // namespace

std::string roofline_html(const RooflineRun& run) {
  return fmt::format(
      "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\"><head><meta "
      "charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"/><title>{}: roofline</title><style>{}</style></head><body>\n{}"
      "</body></html>\n",
      escaped(short_name(run.shape.name)), kStyle, page_body(run));
}

}  // namespace qllm::app
