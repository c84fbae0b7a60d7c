// What the measuring programs share: medians, worker counts, common flags.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace qllm::bench {

/// Median with the spread beside it.
struct Summary {
  double median = 0;
  double min = 0;
  double max = 0;
};

inline Summary summarize(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values.front(),
          values.back()};
}

inline nlohmann::json to_json(const Summary& s) {
  return {{"median", s.median}, {"min", s.min}, {"max", s.max}};
}

/// Flags that every program takes.
struct CommonFlags {
  bool json = false;
  int repeat = 7;
  int threads = 0;  // 0: 1, 2, 4, … up to what the machine gives

  void add_to(CLI::App& app) {
    app.add_flag("--json", json, "one JSON document on stdout instead of a table");
    app.add_option("--repeat", repeat, "measurements per figure")
        ->capture_default_str()
        ->check(CLI::Range(1, 10000));
    app.add_option("--threads", threads, "only this number of workers; 0: 1, 2, 4, ... all")
        ->capture_default_str()
        ->check(CLI::Range(0, 4096));
  }
};

inline std::vector<int> worker_counts(const CommonFlags& flags, int most) {
  if (flags.threads > 0) return {flags.threads};
  std::vector<int> counts;
  for (int n = 1; n < most; n *= 2) counts.push_back(n);
  counts.push_back(most);
  return counts;
}

}  // namespace qllm::bench
