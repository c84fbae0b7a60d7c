#include "roofline_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <regex>

#include "gnuplot.h"

namespace qllm::app {
namespace {

constexpr size_t kMostWaterfalls = 4;
constexpr int64_t kLastBatch = 1024;  // of the curve
// Okabe and Ito's colours, which the colour-blind tell apart (jfly.uni-koeln.de/color, 2008).
constexpr std::array<const char*, 6> kColours = {"#0072B2", "#D55E00", "#009E73",
                                                 "#CC79A7", "#E69F00", "#56B4E9"};

const char* colour(size_t device) { return kColours[device % kColours.size()]; }

// A size of paper: everything that differs between a desk and a phone.
struct Paper {
  int width;
  int font;
};
constexpr Paper kWide{760, 14};
constexpr Paper kNarrow{380, 12};

std::string terminal(const Paper& paper, int height) {
  return fmt::format(
      "set terminal svg size {},{} dynamic enhanced font 'DejaVu Sans,Arial,{}' background "
      "'#ffffff'\n"
      "set encoding utf8\n"
      "set border 3 lw 1 lc rgb '#666666'\n"
      "set tics nomirror\n"
      "set grid xtics ytics lc rgb '#dddddd' lw 0.7\n"
      "set key below noenhanced samplen 1.5 spacing 1.1\n"
      "set xlabel offset 0,0.8\n",
      paper.width, height, paper.font);
}

std::string title(const rl::Device& d) { return plot_text(d.id); }

/// Operations a second that an op can reach, in 1e12.
double reached(const rl::OpEstimate& op) {
  return static_cast<double>(op.cost.operations) / op.min_time_s / 1e12;
}

bool can_be_drawn(const rl::OpEstimate& op) {
  return op.cost.bytes() > 0 && op.cost.operations > 0 && op.min_time_s > 0;
}

std::string points(const std::string& name, const rl::Estimate& e) {
  std::string data = fmt::format("${} << EOD\n", name);
  for (const rl::OpEstimate& op : e.ops) {
    if (can_be_drawn(op)) data += fmt::format("{:.6g} {:.6g}\n", op.cost.intensity(), reached(op));
  }
  return data + "EOD\n";
}

// The matrix that takes longest, and attention, carry their names.
std::string labels(const std::string& name, const rl::Estimate& e) {
  const auto longest =
      std::max_element(e.ops.begin(), e.ops.end(), [](const auto& a, const auto& b) {
        return (can_be_drawn(a) ? a.min_time_s : 0) < (can_be_drawn(b) ? b.min_time_s : 0);
      });
  std::string data = fmt::format("${} << EOD\n", name);
  for (const rl::OpEstimate& op : e.ops) {
    if (!can_be_drawn(op) || (&op != &*longest && op.cost.name != "qk")) continue;
    data += fmt::format("{:.6g} {:.6g} \"{}\"\n", op.cost.intensity(), reached(op),
                        plot_text(op_title(op.cost.name)));
  }
  return data + "EOD\n";
}

// The range of intensities, a little beyond the outermost points.
std::pair<double, double> intensities(const RooflineRun& run) {
  double low = 1;
  double high = 1;
  for (size_t d = 0; d < run.devices.size(); ++d) {
    for (const rl::Estimate* e : {&run.cell(d, 0).prefill, &run.cell(d, 0).decode}) {
      for (const rl::OpEstimate& op : e->ops) {
        if (!can_be_drawn(op)) continue;
        low = std::min(low, op.cost.intensity());
        high = std::max(high, op.cost.intensity());
      }
    }
  }
  return {low / 2, high * 3};
}

// What a device attains at intensity x, in 1e12 operations a second; `peak` 0: not known.
std::string roof_of(const rl::Device& device, double peak) {
  const double slope = device.read_gbps / 1e3;
  return peak > 0 ? fmt::format("least({:.6g}*x, {:.6g})", slope, peak)
                  : fmt::format("{:.6g}*x", slope);
}

std::string roof_script(const RooflineRun& run, const Paper& paper) {
  const auto [low, high] = intensities(run);
  const int rows = static_cast<int>(run.devices.size());
  std::string s = terminal(paper, (paper.width == kWide.width ? 400 : 320) + 22 * rows);
  s += fmt::format(
      "set logscale xy\nset format xy '10^{{%T}}'\nset xrange [{:.6g}:{:.6g}]\nset samples 500\n"
      "set xlabel 'intensity (operations per byte)'\n"
      "set ylabel 'attainable rate (10^{{12}} operations per second)'\n"
      "least(a, b) = a < b ? a : b\n",
      low, high);
  std::string plots;
  for (size_t d = 0; d < run.devices.size(); ++d) {
    const rl::Device& device = run.devices[d];
    const RooflineCell& cell = run.cell(d, 0);
    s += points(fmt::format("d{}", d), cell.decode) + points(fmt::format("p{}", d), cell.prefill);
    s += labels(fmt::format("dl{}", d), cell.decode) + labels(fmt::format("pl{}", d), cell.prefill);
    const double peak = std::max({device.int8_tops, device.fp16_tflops, device.fp32_tflops});
    // Attention computes in floats: a roof of its own, below that of the linears.
    const double floats = device.fp16_tflops > 0 ? device.fp16_tflops : device.fp32_tflops;
    const std::string roof = roof_of(device, peak);
    plots += fmt::format(
        "{0} {1} with lines lw 2 lc rgb '{2}' title '{3}', "
        "$d{4} with points pt 7 ps 0.8 lc rgb '{2}' title 'decode', "
        "$p{4} with points pt 9 ps 0.9 lc rgb '{2}' title 'prefill', "
        "$dl{4} with labels left offset 0.6,-0.8 font ',{5}' tc rgb '{2}' notitle, "
        "$pl{4} with labels right offset -0.6,0.8 font ',{5}' tc rgb '{2}' notitle",
        d == 0 ? "plot" : ",", roof, colour(d), title(device), d, paper.font - 2);
    if (floats > 0 && floats < peak) {
      plots += fmt::format(", {} with lines lw 1 dt 2 lc rgb '{}' notitle", roof_of(device, floats),
                           colour(d));
    }
  }
  return s + plots + "\n";
}

// Ops too short to be seen are one bar at the end.
std::vector<std::pair<std::string, double>> bars(const rl::Estimate& e) {
  std::vector<std::pair<std::string, double>> list;
  double rest = 0;
  for (const rl::OpEstimate& op : e.ops) {
    if (op.min_time_s < 0.004 * e.step_s) {
      rest += op.min_time_s;
    } else {
      list.emplace_back(op_title(op.cost.name), op.min_time_s * 1e3);
    }
  }
  list.emplace_back("all others", rest * 1e3);
  return list;
}

std::string waterfall_script(const RooflineRun& run, size_t device, const Paper& paper) {
  const RooflineCell& cell = run.cell(device, 0);
  const auto list = bars(cell.decode);
  std::string s = terminal(paper, 80 + 24 * static_cast<int>(list.size()));
  s += fmt::format(
      "set xlabel 'time of one decode step (ms), batch {}'\nset yrange [{}:-0.7]\n"
      "set xrange [0:{:.6g}]\nset format x '%g'\nset xtics autofreq\nset grid noytics\nunset key\n"
      "set style fill solid 0.9 noborder\n",
      cell.what.batch, static_cast<double>(list.size()) - 0.3, cell.decode.step_s * 1.12e3);
  std::string tics;
  std::string data = "$bars << EOD\n";
  double from = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const auto& [name, ms] = list[i];
    tics += fmt::format("{}'{}' {}", i == 0 ? "" : ", ", plot_text(name), i);
    data += fmt::format("{:.6g} {:.6g} {} \"{}\"\n", from, from + ms, i, plot_text(figure(ms)));
    from += ms;
  }
  s += "set ytics (" + tics + ") noenhanced\n" + data + "EOD\n";
  return s + fmt::format(
                 "plot $bars using (($1+$2)/2):3:1:2:($3-0.36):($3+0.36) with boxxyerror fc rgb "
                 "'{}', $bars using 2:3:4 with labels left offset 0.5,0 font ',{}' tc rgb "
                 "'#444444'\n",
                 colour(device), paper.font - 3);
}

std::string curve_script(const RooflineRun& run, const Paper& paper) {
  std::string s = terminal(paper, paper.width == kWide.width ? 420 : 340);
  s += "set logscale x 2\nset logscale y\nset format y '%g'\n"
       "set xlabel 'batch (sequences that decode together)'\n"
       "set ylabel 'ceiling (tokens per second, of all sequences)'\n";
  std::string plots;
  for (size_t d = 0; d < run.devices.size(); ++d) {
    s += fmt::format("$c{} << EOD\n", d);
    rl::Workload work = run.cell(d, 0).decode.workload;
    for (work.batch = 1; work.batch <= kLastBatch; work.batch *= 2) {
      const rl::Estimate e = rl::estimate(run.shape, work, run.devices[d]);
      s += fmt::format("{} {:.6g}\n", work.batch, e.tokens_per_s);
    }
    s += "EOD\n";
    plots += fmt::format("{} $c{} with linespoints lw 2 pt 7 ps 0.6 lc rgb '{}' title '{}'",
                         d == 0 ? "plot" : ",", d, colour(d), title(run.devices[d]));
  }
  return s + plots + "\n";
}

/// From "<svg" on, its ids told apart from those of the other plots of the page.
std::string for_a_page(std::string svg, const std::string& prefix) {
  const size_t begin = svg.find("<svg");
  if (begin == std::string::npos) throw Error(ErrorCode::io, "gnuplot: wrote no SVG");
  svg.erase(0, begin);
  svg = std::regex_replace(svg, std::regex("\\b(id|href)=(['\"])(#?)"), "$1=$2$3" + prefix);
  return std::regex_replace(svg, std::regex("url\\(#"), "url(#" + prefix);
}

}  // namespace

std::vector<Plot> roofline_plots(const RooflineRun& run) {
  std::vector<Plot> plots;
  const auto add = [&](std::string name, const std::function<std::string(const Paper&)>& script) {
    const size_t n = plots.size();
    plots.push_back({std::move(name),
                     for_a_page(run_gnuplot(script(kWide)), fmt::format("w{}-", n)),
                     for_a_page(run_gnuplot(script(kNarrow)), fmt::format("n{}-", n))});
  };
  add("Every op under the roof (dashed: the roof of floats, which attention has)",
      [&](const Paper& p) { return roof_script(run, p); });
  for (size_t d = 0; d < std::min(run.devices.size(), kMostWaterfalls); ++d) {
    add("Where a decode step's time goes: " + run.devices[d].id,
        [&](const Paper& p) { return waterfall_script(run, d, p); });
  }
  add("Tokens per second against the batch", [&](const Paper& p) { return curve_script(run, p); });
  return plots;
}

}  // namespace qllm::app
