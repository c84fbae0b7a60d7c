// How figures are shown: JSON, tables, medians, sizes.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "qllm/qllm.hpp"

namespace qllm::app {

/// Keys keep the order in which they were set.
using Json = nlohmann::ordered_json;

/// One document and a newline on standard output; invalid UTF-8 in strings becomes U+FFFD.
void print_json(const Json& document);

/// Median and range of repeated measurements.
struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};
Spread spread_of(std::vector<double> values);

/// Sets `key`, `key_min` and `key_max` of `object`.
void set_spread(Json& object, const std::string& key, const Spread& spread);

/// Where a model's weights lie: a document, and lines of text.
Json placement_json(const PlacementInfo& placement);
std::string placement_text(const PlacementInfo& placement);

/// Columns of text, each as wide as its widest cell; the first row is the heading.
class Table {
 public:
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const;
  /// The same as comma-separated values.
  std::string csv() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// "98.1 MB": decimal units, as memory bandwidth is given.
std::string human_bytes(int64_t bytes);
/// "134.5 M".
std::string human_count(int64_t count);
/// "[576, 49152]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace qllm::app
