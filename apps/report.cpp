#include "report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "terminal.h"

namespace qllm::app {
namespace {

// UTF-8 characters, near enough to columns for what is shown here.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

std::string csv_cell(const std::string& cell) {
  if (cell.find_first_of(",\"\n") == std::string::npos) return cell;
  std::string quoted(1, '"');
  for (const char c : cell) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  quoted += '"';
  return quoted;
}

std::string scaled(int64_t value, const std::array<const char*, 5>& units) {
  auto x = static_cast<double>(value);
  size_t unit = 0;
  while (x >= 1000 && unit + 1 < units.size()) {
    x /= 1000;
    ++unit;
  }
  if (unit == 0) return fmt::format("{}{}", value, units[0]);
  return fmt::format("{:.{}f}{}", x, x < 10 ? 2 : 1, units[unit]);
}

}  // namespace

void print_json(const Json& document) {
  write_stdout(document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {median, values.front(), values.back()};
}

void set_spread(Json& object, const std::string& key, const Spread& spread) {
  object[key] = spread.median;
  object[key + "_min"] = spread.min;
  object[key + "_max"] = spread.max;
}

Json placement_json(const PlacementInfo& placement) {
  Json json;
  json["policy"] = placement.policy;
  json["known"] = placement.known;
  json["bound"] = placement.bound;
  Json& nodes = json["nodes"] = Json::array();
  for (const PlacementInfo::Node& node : placement.nodes) {
    nodes.push_back(
        {{"node", node.node}, {"workers", node.workers}, {"weight_bytes", node.weight_bytes}});
  }
  json["local_bytes"] = placement.local_bytes;
  json["remote_bytes"] = placement.remote_bytes;
  json["nowhere_bytes"] = placement.nowhere_bytes;
  json["remote_bytes_per_step"] = placement.remote_bytes_per_step;
  return json;
}

std::string placement_text(const PlacementInfo& placement) {
  if (!placement.known) return "placement  the kernel does not tell where pages lie\n";
  Table table;
  const std::string refused = placement.bound ? "" : " (binding refused)";
  table.row({"placement",
             fmt::format("{}{}: {} local, {} remote{}", placement.policy, refused,
                         human_bytes(placement.local_bytes), human_bytes(placement.remote_bytes),
                         placement.nowhere_bytes > 0
                             ? ", " + human_bytes(placement.nowhere_bytes) + " not in memory"
                             : "")});
  for (const PlacementInfo::Node& node : placement.nodes) {
    table.row(
        {fmt::format("node {}", node.node),
         fmt::format("{} of weights, {} worker(s)", human_bytes(node.weight_bytes), node.workers)});
  }
  table.row({"remote reads", human_bytes(placement.remote_bytes_per_step) + " a step"});
  return table.text();
}

std::string Table::text() const {
  std::vector<size_t> widths;
  for (const auto& cells : rows_) {
    widths.resize(std::max(widths.size(), cells.size()));
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], width_of(cells[i]));
  }
  std::string out;
  for (const auto& cells : rows_) {
    for (size_t i = 0; i < cells.size(); ++i) {
      out += cells[i];
      if (i + 1 < cells.size()) out.append(widths[i] - width_of(cells[i]) + 2, ' ');
    }
    out += '\n';
  }
  return out;
}

std::string Table::csv() const {
  std::string out;
  for (const auto& cells : rows_) {
    for (size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) out += ',';
      out += csv_cell(cells[i]);
    }
    out += '\n';
  }
  return out;
}

std::string human_bytes(int64_t bytes) { return scaled(bytes, {" B", " kB", " MB", " GB", " TB"}); }

std::string human_count(int64_t count) { return scaled(count, {"", " k", " M", " B", " T"}); }

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace qllm::app
