// The table of data sheets: devices.json, compiled in.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "qllm/roofline.hpp"
#include "roofline/devices_json.h"

namespace qllm::roofline {
namespace {

using Json = nlohmann::json;

constexpr double kMaxFigure = 1e9;

double figure(const Json& row, const char* key, const std::string& origin) {
  const auto at = row.find(key);
  if (at == row.end()) return 0;
  require(at->is_number() && at->get<double>() > 0 && at->get<double>() < kMaxFigure,
          ErrorCode::bad_format, "{}: key {}: expected a number above 0", origin, key);
  return at->get<double>();
}

std::string text(const Json& row, const char* key, const std::string& origin) {
  const auto at = row.find(key);
  require(at != row.end() && at->is_string() && !at->get<std::string>().empty(),
          ErrorCode::bad_format, "{}: key {}: expected a text", origin, key);
  return at->get<std::string>();
}

Device parse_device(const Json& row, const std::string& origin) {
  require(row.is_object(), ErrorCode::bad_format, "{}: expected an object for each device", origin);
  Device d;
  d.id = text(row, "id", origin);
  const std::string place = origin + ": " + d.id;
  const std::string kind = text(row, "kind", place);
  require(kind == "gpu" || kind == "cpu", ErrorCode::bad_format,
          "{}: key kind: expected gpu or cpu", place);
  d.is_gpu = kind == "gpu";
  d.title = text(row, "title", place);
  d.read_gbps = figure(row, "read_gbps", place);
  require(d.read_gbps > 0, ErrorCode::bad_format, "{}: key read_gbps: is missing", place);
  d.int8_tops = figure(row, "int8_tops", place);
  d.fp16_tflops = figure(row, "fp16_tflops", place);
  d.fp32_tflops = figure(row, "fp32_tflops", place);
  d.memory_gb = figure(row, "memory_gb", place);
  d.tdp_w = figure(row, "tdp_w", place);
  d.pcie_gbps = figure(row, "pcie_gbps", place);
  d.source = text(row, "source", place);
  if (row.contains("derivation")) d.derivation = text(row, "derivation", place);
  return d;
}

}  // namespace

std::vector<Device> parse_devices(std::string_view json, const std::string& origin) {
  const Json table = Json::parse(json, nullptr, false);
  require(table.is_object() && table.contains("devices") && table["devices"].is_array(),
          ErrorCode::bad_format, "{}: expected an object with a list \"devices\"", origin);
  std::vector<Device> list;
  for (const Json& row : table["devices"]) {
    list.push_back(parse_device(row, origin));
    const bool is_new = std::none_of(list.begin(), list.end() - 1,
                                     [&](const Device& d) { return d.id == list.back().id; });
    require(is_new, ErrorCode::bad_format, "{}: device {} is there twice", origin, list.back().id);
  }
  return list;
}

std::vector<Device> devices() { return parse_devices(kDevicesJson, "devices.json"); }

Device device(std::string_view id) {
  const std::vector<Device> all = devices();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Device& d) { return d.id == id; });
  std::string names;
  for (const Device& d : all) names += (names.empty() ? "" : ", ") + d.id;
  require(found != all.end(), ErrorCode::not_found, "device {}: expected cpu, cuda or one of {}",
          id, names);
  return *found;
}

}  // namespace qllm::roofline
